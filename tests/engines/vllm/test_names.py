"""The names of vLLM that the engine uses: the installed one has them, and one that goes is said."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

from sparcom.engines.vllm import names
from sparcom.errors import InputError

VLLM = Path(find_spec("vllm").submodule_search_locations[0])
SOURCES = Path(names.__file__).parent
MODULES = {module: some for one, some in names.USED.items() for module in one.split(" | ")}


def test_the_installed_vllm_has_every_name(capsys):
    assert names.missing(VLLM) == []
    names.check_names("0.32.0")
    assert names.main([str(VLLM)]) == 0
    total = sum(len(some) for some in names.USED.values())
    assert capsys.readouterr().out == f"all {total} names are there\n"


def copy_without(folder: Path, module: str, pattern: str) -> Path:
    """All modules of `USED` that are there, one of them without what matches."""
    for name in MODULES:
        path = Path(*name.split("."))
        for source in (VLLM / path / "__init__.py", VLLM / path.with_suffix(".py")):
            if not source.is_file():
                continue
            text = source.read_text()
            if name == module:
                text, found = re.subn(pattern, r"\1_renamed", text)
                assert found
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.with_suffix(".py")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("module", "pattern", "gone"),
    [
        ("v1.worker.gpu.model_runner", r"(def prepare_inputs)\b", "GPUModelRunner.prepare_inputs"),
        (
            "v1.worker.gpu.input_batch",
            r"(query_start_loc_np)(?=: np)",
            "InputBatch.query_start",
        ),
        ("v1.worker.gpu_worker", r"(self.use_v2_model_runner)(?= =)", "Worker.use_v2_model_runner"),
        ("v1.core.kv_cache_manager", r"(get_computed_blocks)(?=\()", "KVCacheManager.get_comp"),
        ("model_executor.layers.activation", r"(class SiluAndMul)(?=\()", "SiluAndMul, which"),
    ],
)
def test_a_name_that_is_gone_is_one_line(tmp_path, module, pattern, gone, capsys):
    folder = copy_without(tmp_path, module, pattern)
    with pytest.raises(InputError) as caught:
        names.check_names("0.99.0", folder)
    line = str(caught.value)
    assert line.startswith(f"vllm 0.99.0: vllm.{module}: {gone}")
    assert "\n" not in line
    assert names.main([str(folder)]) == 1
    assert gone.split(",")[0] in capsys.readouterr().out


def test_a_module_that_is_gone_is_said_too(tmp_path):
    folder = copy_without(tmp_path, "sampling_params", r"(Sampling)(?=Params)")
    (folder / "v1" / "request.py").unlink()
    with pytest.raises(InputError, match=r"SamplingParams.max_tokens, .* is gone, and \d+ more"):
        names.check_names("0.99.0", folder)
    assert "vllm.v1.request: Request.num_tokens" in names.missing(folder)


def test_what_the_engine_imports_is_listed():
    """A module that the engine's sources import from, with the name, is in `USED`."""
    listed = {f"vllm.{module}": {n.split(".")[0] for n in some} for module, some in MODULES.items()}
    elsewhere = {("vllm", "SamplingParams"), ("vllm.platforms", "current_platform")}
    imported = set()
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                imported |= {(node.module, alias.name) for alias in node.names}
    assert len(imported) > 10
    for module, name in imported - elsewhere:
        known = listed.get(module, set())
        assert name in known or f"{module}.{name}" in listed, f"{module}: {name} is not in USED"
