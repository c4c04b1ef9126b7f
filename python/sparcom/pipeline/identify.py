"""Selecting the sets of a stored run again, from its counts."""

from dataclasses import asdict
from typing import Any

import numpy as np
from tqdm import tqdm

from sparcom.components import ComponentSpace
from sparcom.errors import InputError
from sparcom.planning.manifest import require_stamps, stamps_of
from sparcom.selection.lift import Baseline
from sparcom.selection.rules import Selection
from sparcom.selection.rules import identify as select_sets
from sparcom.store import CellRule, MergeTree, Run, RunLock, RunStore, Span, part_profile
from sparcom.store.corpus_file import LABELS


def identify(location: str, *, progress: bool = False, **changes: Any) -> dict[str, Any]:
    """Select the sets of a stored run again from its counts.

    changes: fields of `Selection` (rule, expert_rule, ties, pool) that differ from the run's.
    In a run that is not complete, the parts that are counted get new sets; `--resume` with the same
    rule counts the others. Returns the selection, and how many instructions have sets now.
    Raises InputError if the run did not retain its counts, or if the rule is lift and its baseline
    is of another model, or the run is not complete.

    >>> identify("runs/first", rule="top:0.05", ties="exact")
    """
    store = RunStore(location)
    require_stamps(store.location, store.manifest())  # raises if no run is there to be locked
    with RunLock(store.files):
        manifest = store.manifest()
        if not store.results.parts("counts"):
            raise InputError(
                f"{location}: this run retained no counts, so its sets cannot be selected again; "
                "count again with --retain counts"
            )
        if manifest["config"].get("magnitudes"):
            raise InputError(
                f"{location}: the profile of this run holds magnitudes, which its counts do not, "
                "so that it cannot be made again; count again with the other rule"
            )
        selection = Selection(**{**manifest["selection"], **changes})
        baseline = _baseline(store, manifest, selection) if selection.lifts else None
        # In the config too, so that resuming sees what the sets follow.
        config = {**manifest["config"], **changes}
        manifest = {**manifest, "config": config, "selection": asdict(selection)}
        manifest["stamps"] = stamps_of(manifest)
        # A stop in between leaves sets of two rules, whose stamps tell them apart on resuming.
        store.write_manifest({**manifest, "status": "running"})
        store.files.delete_folder("analysis")  # figures of the sets that go
        store.bind(manifest["stamps"])
        total, whole = _select(store, manifest, selection, baseline, progress)
        store.write_manifest(manifest if whole else {**manifest, "status": "stopped"})
    return {"instructions": total, **asdict(selection)}


def _baseline(store: RunStore, manifest: dict, selection: Selection) -> Baseline:
    """The summed counts of the run that the rule names, or of all instructions of this one."""
    space = ComponentSpace.from_json(manifest["sites"])
    if selection.baseline:
        other = Run(selection.baseline)
        if other.space.sites != space.sites:
            raise InputError(
                f"baseline: {selection.baseline} is of a model of another shape than "
                f"{store.location}; count it with the same model"
            )
        cells, sums = other.store.profiles.read(("fold",), ("neuron_counts",))
        tokens = int(cells["tokens"].to_numpy().sum())
        return Baseline(sums["neuron_counts"].sum(0, dtype=np.int64), tokens)
    counts, tokens, parts = np.zeros(space.neurons, np.int64), 0, 0
    for _, counted in store.results.counts():
        counts += counted.neurons.sum(0, dtype=np.int64)
        tokens, parts = tokens + int(counted.tokens.sum()), parts + 1
    if parts < store.corpus.parts():
        raise InputError(
            f"{store.location}: {parts} of {store.corpus.parts()} parts are counted, and rule "
            f"{selection.rule} ranks over all instructions; complete the run with --resume first"
        )
    return Baseline(counts, tokens)


def _select(
    store: RunStore,
    manifest: dict,
    selection: Selection,
    baseline: Baseline | None,
    progress: bool,
) -> tuple[int, bool]:
    """(instructions that have sets now, whether every part has)."""
    space = ComponentSpace.from_json(manifest["sites"])
    cells = CellRule.from_json(manifest["cells"])
    failed = {failure.id for failure in store.results.failures()}
    store.files.delete_folder("profiles")
    parts, done, total = store.corpus.parts(), 0, 0
    tree = MergeTree(parts)
    for part, counted in tqdm(store.results.counts(signs=True), unit="part", disable=not progress):
        labels = store.corpus.part(part, LABELS)
        labels = labels.filter([name not in failed for name in labels["id"].to_pylist()])
        if tuple(labels["id"].to_pylist()) != counted.ids:
            continue  # its writer was killed half-way: without a profile, --resume counts it again
        sets = select_sets(counted, space, selection, baseline)
        store.results.write_sets(part, sets)
        keys = cells.keys(labels, counted.tokens)
        store.profiles.write(part, part_profile(counted, sets, keys))
        for span in tree.add(part):
            store.profiles.merge(span)
        done += 1
        total += len(counted.ids)
    if done == parts:
        store.profiles.merge(Span(0, parts))
    return total, done == parts
