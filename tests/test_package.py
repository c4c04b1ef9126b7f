"""What `import sparcom` gives, and that a wheel holds everything."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import sparcom
from sparcom.report.page import APP, SCRIPTS

SOURCE = Path(sparcom.__file__).parent


@pytest.mark.parametrize("name", sparcom.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(sparcom, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sparcom.__getattr__("nothing")


def test_every_folder_with_code_is_a_package() -> None:
    folders = {file.parent for file in SOURCE.rglob("*.py")}
    assert [f for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


@pytest.mark.slow
def test_a_wheel_works_from_any_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    alone = {**clean, "SPARCOM_CUDA": "0"}
    subprocess.run(build, cwd=SOURCE.parents[1], env=alone, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=False)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [*pip, "--python", str(python), "install", "--no-deps", str(wheel)],
        env=clean, check=True, capture_output=True,
    )  # fmt: skip
    code = (
        "import sparcom, sparcom.corpus.opening as h; from pathlib import Path\n"
        "root = Path(sparcom.__file__).parent\n"
        f"assert root.is_relative_to({str(tmp_path)!r}), root\n"
        "print(sparcom.build_info()['cpu'], (root / 'report/page.html').is_file(),"
        " len(list((root / 'report').glob('app/*.js'))),"
        " len(list((root / 'report').glob('vendor/*.js'))),"
        " len(list((root / 'corpus/hexainst/data/hexainst').glob('*.jsonl'))))"
    )
    # The dependencies come from this environment's site-packages; sparcom itself must not.
    dependencies = os.pathsep.join(p for p in sys.path if p.endswith("site-packages"))
    shown = subprocess.run(
        [str(python), "-c", code],
        cwd=tmp_path, env={**clean, "PYTHONPATH": dependencies},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.split() == ["True", "True", str(len(APP)), str(len(SCRIPTS)), "12"]
