"""GGUF files: converted to bf16 safetensors and a tokenizer, which the engines read."""

import io
import os
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from sparcom.errors import InputError
from sparcom.formatting import shorten
from sparcom.model_files import check_config


def convert_gguf(source: Path, folder: Path) -> Path:
    """The folder with a GGUF file's model as bf16 safetensors and tokenizer.

    Made once, in a temporary folder that is renamed when whole.
    Raises InputError if the file cannot be read or does not fill its model, or if the folder cannot
    be written.
    """
    if (folder / "config.json").is_file():
        return folder
    building = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        building.mkdir(parents=True, exist_ok=True)
        _check_space(folder.parent, 8 * source.stat().st_size)
        for part in _read(source):
            part.save_pretrained(building)
        try:
            building.rename(folder)
        except OSError:  # another process was first; its folder is the same
            if not (folder / "config.json").is_file():
                raise
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written: {error.strerror or error}; name another cache folder in "
            "SPARCOM_CACHE"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _read(source: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of a GGUF file; raises InputError if it is not a whole one."""
    try:
        with redirect_stderr(io.StringIO()):  # transformers draws a bar there, whatever it is told
            return _load(source)
    except InputError:
        raise
    except BaseException as error:  # a damaged header raises anything, a PanicException of Rust too
        if not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise
        reason = shorten(str(error).strip().partition("\n")[0], 200)
        raise InputError(
            f"model {source}: cannot be read as GGUF: {type(error).__name__}: {reason}"
        ) from error


def _load(source: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    check_config(config.to_dict(), f"model {source}")
    _check_size(source, config)
    model, found = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    if wrong := sorted([*found["missing_keys"], *(n for n, *_ in found["mismatched_keys"])]):
        raise InputError(
            f"model {source}: {len(wrong)} tensors of the model are not in it "
            f"({', '.join(wrong[:3])}); fetch it again"
        )
    return model, AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)


def _check_size(source: Path, config: Any) -> None:
    """Raise InputError if the model of a config has more weights than the file holds.

    What a damaged header does not say, a config takes from the model of its defaults: 7 billion
    weights, which would be made up before they are missed.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    there = sum(int(tensor.n_elements) for tensor in GGUFReader(source).tensors)
    if weights > there:
        raise InputError(
            f"model {source}: its header describes a model of {weights} weights, and it holds "
            f"{there}; fetch it again"
        )


def _check_space(folder: Path, needed: int) -> None:
    """Raise InputError if a folder's disk has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: {needed >> 20} MB are needed, {free >> 20} MB are free; free some, or name "
            "another cache folder in SPARCOM_CACHE"
        )
