"""Selecting the sets of a stored run anew, from its counts."""

from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from sparcom.components import ComponentSpace
from sparcom.errors import InputError
from sparcom.identify import Selection, identify
from sparcom.service.plan import stamps_of
from sparcom.store import CellRule, RunLock, RunStore, Span, part_profile
from sparcom.store.corpus_file import LABELS
from sparcom.store.spans import FAN


def run_identify(
    location: str, changes: dict[str, Any], *, progress: bool = False
) -> dict[str, Any]:
    """Select the sets of a stored run anew from its counts.

    changes: fields of `Selection` that differ from the stored run's.
    Raises InputError where the run did not retain its counts.
    """
    store = RunStore(location)
    manifest = store.manifest()
    if not store.has_counts():
        raise InputError(
            f"{location}: this run retained no counts, so its sets cannot be selected anew; count "
            "again with --retain counts"
        )
    selection = Selection(**{**manifest["selection"], **changes})
    # In the config too, so that resuming sees what the sets follow.
    config = {**manifest["config"], **changes}
    manifest = {**manifest, "config": config, "selection": asdict(selection)}
    with RunLock(store.files):
        # A stop in between leaves sets of two rules, whose stamps tell them apart on resuming.
        store.write_manifest({**manifest, "status": "running"})
        store.files.delete_folder("analysis")  # figures of the sets that go
        total = _select(RunStore(location, stamps_of(manifest)), manifest, selection, progress)
        store.write_manifest(manifest)
    return {"instructions": total, **asdict(selection)}


def _select(store: RunStore, manifest: dict, selection: Selection, progress: bool) -> int:
    space = ComponentSpace.from_json(manifest["sites"])
    cells = CellRule.from_json(manifest["cells"])
    store.files.delete_folder("profiles")
    total = last = 0
    for part, counted in tqdm(store.count_parts(), unit="part", disable=not progress):
        sets = identify(counted, space, selection)
        labels = store.corpus_part(part, LABELS)
        if len(labels) > len(counted.ids):
            kept = set(counted.ids)
            labels = labels.filter([name in kept for name in labels["id"].to_pylist()])
        store.write_sets(part, sets)
        store.write_profile(part, part_profile(counted, sets, cells.keys(labels)))
        total += len(counted.ids)
        last = part
        if part % FAN == FAN - 1:
            store.merge_span(Span(part + 1 - FAN, part + 1))
    store.merge_span(Span(0, last + 1))
    return total
