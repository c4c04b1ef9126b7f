"""run.json: a key that is gone or of another type is named, and any other change is told."""

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_helpers import DENSE, manifest_of

from sparcom.errors import InputError
from sparcom.store.files import Files
from sparcom.store.run_json import READABLE, SCHEMA, read_run_json, write_run_json

WHOLE = manifest_of(DENSE, sessions=[{"seconds": 1.5, "actor_seconds": 1.0, "parts": 2}])


def stored(folder: Path, manifest: Any, *, checksum: bool = True) -> Files:
    """A run.json with a checksum of its own, as the docs say how it is made."""
    if checksum:
        manifest = {"schema_version": 2, **manifest}
        text = json.dumps(manifest, sort_keys=True)
        manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "run.json").write_text(json.dumps(manifest))
    return Files(folder)


def changed(path: tuple, value: Any = None, *, remove: bool = False) -> dict:
    manifest = copy.deepcopy(WHOLE)
    inner: Any = manifest
    for step in path[:-1]:
        inner = inner[step]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return manifest


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_run_json(Files(tmp_path), WHOLE)
    assert read_run_json(Files(tmp_path)) == {**WHOLE, "schema_version": 2}
    assert read_run_json(stored(tmp_path, WHOLE)) == {**WHOLE, "schema_version": 2}


def required() -> Iterator[tuple]:
    """The paths of all keys that must be there."""
    for name in (*SCHEMA["required"], *SCHEMA["then"]["required"]):
        if name in WHOLE:
            yield (name,)
            yield from ((name, inner) for inner in SCHEMA["properties"][name].get("required", ()))
    yield ("sites", 0, "width")
    yield ("sessions", 0, "parts")


@pytest.mark.parametrize("path", list(required()), ids=lambda path: ".".join(map(str, path)))
def test_a_key_that_is_gone_is_named(tmp_path: Path, path: tuple) -> None:
    files = stored(tmp_path, changed(path, remove=True))
    with pytest.raises(InputError, match=rf"run.json.*'{path[-1]}' is a required property; .* --"):
        read_run_json(files)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status",), "done"),
        (("config", "retain"), 3),
        (("config", "map"), [1]),
        (("config", "slots"), {}),
        (("corpus", "instructions"), "7"),
        (("cells", "edges"), None),
        (("cells", "edges", 0), "4"),
        (("cells", "folds"), 0),
        (("sites",), []),
        (("sites", 0, "kind"), "sparse"),
        (("sites", 0, "width"), -1),
        (("sites", 0, "gated"), "yes"),
        (("selection", "pool"), 1),
        (("stamps", "sets"), None),
        (("threads",), 0),
        (("sessions",), {}),
    ],
)
def test_a_value_of_another_type_is_named(tmp_path: Path, path: tuple, value: Any) -> None:
    files = stored(tmp_path, changed(path, value))
    place = r"\.".join(map(str, path))
    with pytest.raises(InputError, match=f"run.json: {place}[.:].*changed by hand or is damaged"):
        read_run_json(files)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("sites", 0, "width"), 12), (("cells", "folds"), 3), (("stamps", "sets"), "x")],
)
def test_any_other_change_is_told_by_the_checksum(tmp_path: Path, path: tuple, value: Any) -> None:
    write_run_json(Files(tmp_path), WHOLE)
    written = json.loads((tmp_path / "run.json").read_text())
    files = stored(tmp_path, {**written, **changed(path, value)}, checksum=False)
    with pytest.raises(InputError, match="run.json: its checksum is another one; it was changed"):
        read_run_json(files)


def test_a_run_of_version_1_has_neither_stamps_nor_a_checksum(tmp_path: Path) -> None:
    old = {name: value for name, value in WHOLE.items() if name not in ("stamps", "run")}
    files = stored(tmp_path, {**old, "schema_version": READABLE[0]}, checksum=False)
    assert read_run_json(files)["sites"] == WHOLE["sites"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' comes twice in one object"),
        ('{"a": ' * 20_000, "it is nested too deeply"),
        ('{"a": ' + "7" * 5000 + "}", "Exceeds the limit"),
        ('{"a": NaN}', "NaN is no number"),
        ("null", "expected a JSON object, got null"),
        ("\x00", "Expecting value"),
    ],
)
def test_a_text_that_is_no_manifest(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=f"run.json: .*{message}") as caught:
        read_run_json(Files(tmp_path))
    assert len(str(caught.value)) < 450
