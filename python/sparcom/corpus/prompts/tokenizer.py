"""Loading a model's tokenizer, and what to do if there is none."""

from pathlib import Path
from typing import Any

from sparcom.errors import InputError
from sparcom.formatting import shorten

_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of transformers.

    model: a folder, or a hub id.
    trust_remote_code: run code that comes with the tokenizer. Without it nobody is asked: such a
    tokenizer is refused.
    Raises InputError if it cannot be loaded.
    """
    from transformers import AutoTokenizer

    folder = Path(model)
    if folder.is_dir() and not any((folder / name).is_file() for name in _FILES):
        raise InputError(
            f"model {model}: the folder has no tokenizer; copy tokenizer.json and "
            "tokenizer_config.json into it from the model that it was made from"
        )
    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    except BaseException as error:  # damaged files raise anything, a PanicException of Rust too
        if not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise
        raise InputError(f"model {model}: {_reason(error, trust_remote_code)}") from error


def _reason(error: BaseException, trusted: bool) -> str:
    text = str(error).strip()
    if not trusted and "trust_remote_code" in text:
        return (
            "its tokenizer comes with code of its own, which is not run unless you trust it with "
            "--trust-remote-code"
        )
    first = shorten(text.partition("\n")[0], 250)
    return f"its tokenizer cannot be read: {type(error).__name__}: {first}"
