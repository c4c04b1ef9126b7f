"""Selecting the sets of a stored run anew, from its counts."""

from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from sparcom.components import ComponentSpace
from sparcom.errors import InputError
from sparcom.pipeline.plan import stamps_of
from sparcom.selection.rules import Selection, identify
from sparcom.store import CellRule, MergeTree, RunLock, RunStore, Span, part_profile
from sparcom.store.corpus_file import LABELS


def run_identify(
    location: str, changes: dict[str, Any], *, progress: bool = False
) -> dict[str, Any]:
    """Select the sets of a stored run anew from its counts.

    changes: fields of `Selection` that differ from the stored run's.
    Of a run that is not complete, the parts that are counted get new sets; `--resume` with the same
    rule counts the others.
    Raises InputError where the run did not retain its counts.
    """
    store = RunStore(location)
    store.manifest()  # raises where no run is: nothing is locked there
    with RunLock(store.files):
        manifest = store.manifest()
        if not store.has_counts():
            raise InputError(
                f"{location}: this run retained no counts, so its sets cannot be selected anew; "
                "count again with --retain counts"
            )
        selection = Selection(**{**manifest["selection"], **changes})
        # In the config too, so that resuming sees what the sets follow.
        config = {**manifest["config"], **changes}
        manifest = {**manifest, "config": config, "selection": asdict(selection)}
        # A stop in between leaves sets of two rules, whose stamps tell them apart on resuming.
        store.write_manifest({**manifest, "status": "running"})
        store.files.delete_folder("analysis")  # figures of the sets that go
        store = RunStore(location, stamps_of(manifest))
        total, whole = _select(store, manifest, selection, progress)
        store.write_manifest(manifest if whole else {**manifest, "status": "stopped"})
    return {"instructions": total, **asdict(selection)}


def _select(
    store: RunStore, manifest: dict, selection: Selection, progress: bool
) -> tuple[int, bool]:
    """(instructions that have sets now, whether every part has)."""
    space = ComponentSpace.from_json(manifest["sites"])
    cells = CellRule.from_json(manifest["cells"])
    failed = {failure.id for failure in store.failures()}
    store.files.delete_folder("profiles")
    parts, done, total = store.parts(), 0, 0
    tree = MergeTree(parts)
    for part, counted in tqdm(store.count_parts(), unit="part", disable=not progress):
        labels = store.corpus_part(part, LABELS)
        labels = labels.filter([name not in failed for name in labels["id"].to_pylist()])
        if tuple(labels["id"].to_pylist()) != counted.ids:
            continue  # its writer was killed half-way: without a profile, --resume counts it again
        sets = identify(counted, space, selection)
        store.write_sets(part, sets)
        store.write_profile(part, part_profile(counted, sets, cells.keys(labels)))
        for span in tree.add(part):
            store.merge_span(span)
        done += 1
        total += len(counted.ids)
    if done == parts:
        store.merge_span(Span(0, parts))
    return total, done == parts
