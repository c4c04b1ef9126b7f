"""What may change between two sessions of one run, and what may not."""

from typing import Any

from sparcom.config import RunConfig, keys, stored
from sparcom.errors import InputError


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between the manifests of two sessions so that they cannot share a run.

    A run of a version that did not know a key was made with what is now the key's default.
    """
    free = keys(affects="nothing")
    before = RunConfig().to_json() | stored(old["config"])
    out = [
        f"{key} ({before[key]!r} -> {new['config'].get(key)!r})"
        for key in before
        if key not in free and before[key] != new["config"].get(key)
    ]
    if old["model"]["weights"] != new["model"]["weights"]:
        out.append("the model's weights")
    if old["corpus"] != new["corpus"]:
        out.append("the corpus, its labels or its tokens")
    if old["threads"] != new["threads"]:
        out.append(f"the threads of an actor ({old['threads']} -> {new['threads']}, by --cpus)")
    for name, version in new["versions"].items():
        if (was := old.get("versions", {}).get(name, "not recorded")) != version:
            out.append(f"the version of {name} ({was} -> {version})")
    return out


def check_same(location: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise InputError, naming what differs, if a resumed run is not the stored one."""
    if changed := changes(old, new):
        raise InputError(
            f"{location}: cannot be resumed, since this has changed: {'; '.join(changed)}; "
            "give the old values, or start again with --overwrite or another --out"
        )
