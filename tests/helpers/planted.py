"""Synthetic runs whose truth is known, written as the product writes its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from store_helpers import STAMPS, manifest_of, store_corpus, store_part

from sparcom.analysis.data.bitsets import pack
from sparcom.analysis.data.membership import Membership
from sparcom.components import ComponentSpace, Site
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.counting.counted import Counted
from sparcom.counting.magnitudes import Magnitudes
from sparcom.selection.rules import Group, Selection, expert_groups, neuron_groups
from sparcom.selection.sets import Sets
from sparcom.store import CellRule, Run, RunStore, length_edges, part_profile

CATEGORIES = ("CLS", "CODE", "QA", "GEN", "MATH", "SUM")


def dense_space(layers: int = 3, width: int = 200) -> ComponentSpace:
    return ComponentSpace(tuple(Site("dense", j, width, "silu") for j in range(layers)))


def mixed_space() -> ComponentSpace:
    """Odd widths, routed and shared sites: no site starts on a byte but the first."""
    sites = [Site("dense", 0, 37, "silu")]
    for layer in (1, 2):
        sites.append(Site("routed", layer, 9, "silu", experts=5, top_k=2))
        sites.append(Site("shared", layer, 21, "silu"))
    return ComponentSpace(tuple(sites))


def planted_prevalence(
    categories: Sequence[str], components: int, general: int = 20, unique: int = 15
) -> np.ndarray:
    """[C, components] q: first the general ones (0.9), then `unique` of each category (0.5 against
    0.05), the rest null (0.1)."""
    q = np.full((len(categories), components), 0.1)
    q[:, :general] = 0.9
    for c in range(len(categories)):
        block = slice(general + unique * c, general + unique * (c + 1))
        q[:, block] = 0.05
        q[c, block] = 0.5
    return q


def draw_sets(q: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[n, components] bool: membership drawn from q[codes]."""
    return rng.random((len(codes), q.shape[1])) < q[codes]


def membership_of(
    categories: Sequence[str], mask: np.ndarray, codes: np.ndarray, strata: np.ndarray
) -> Membership:
    """The membership of sets [n, components] bool with category and stratum codes [n]."""
    rows = sorted(set(zip(codes.tolist(), strata.tolist(), strict=True)))
    inside = [(codes == c) & (strata == s) for c, s in rows]
    category, stratum = np.array(rows, np.int64).T
    return Membership(
        categories=tuple(categories),
        category=category,
        stratum=stratum,
        count=np.array([of.sum() for of in inside]),
        members=np.stack([mask[of].sum(0, dtype=np.uint32) for of in inside]),
    )


def write_run(
    folder: Path,
    members: np.ndarray,
    labels: Sequence[str],
    space: ComponentSpace,
    *,
    experts: np.ndarray | None = None,
    sources: Sequence[str] | None = None,
    tokens: np.ndarray | None = None,
    written: np.ndarray | int = 0,
    retain: str = "sets",
    config: dict | None = None,
    status: str = "complete",
    part_size: int = 64,
    skip: Sequence[int] = (),
    stamped: Path | None = None,
    more: bool = False,
) -> Run:
    """A run of n instructions with the given sets [n, neurons]; rows in `skip` are not counted.

    tokens: [n] counted ones of the prompts; written: [n] those of the answers, counted too, of
    which `config["generate"]` is the most. stamped: the run whose stamps the files carry (default:
    this one). more: with signs, up positive where the gate is, and with empty magnitudes.
    """
    n = len(labels)
    tokens = np.arange(n) % 17 + 8 if tokens is None else tokens
    sources = [("human", "ai")[i // 6 % 2] for i in range(n)] if sources is None else sources
    experts = np.zeros((n, 0), bool) if experts is None else experts
    ids = [f"{name}-{i:04d}" for i, name in enumerate(labels)]
    stamps = {name: f"{text} of {stamped or folder}" for name, text in STAMPS.items()}
    store = RunStore(folder, stamps)
    instructions = [
        Instruction(
            ids[i],
            labels[i],
            source=sources[i],
            origin=f"{sources[i]}{i % 5}:{i}",
            instruction="text",
        )
        for i in range(n)
    ]
    prompts = [Prompt(ids[i], tuple(range(int(t))), ((0, int(t)),)) for i, t in enumerate(tokens)]
    generated = (config or {}).get("generate", 0)
    rule = CellRule(length_edges(np.bincount(tokens), generated=generated))
    parts = store_corpus(store, instructions, prompts, part_size)
    tokens = tokens + written
    for part in range(parts):
        rows = [r for r in range(part * part_size, min(n, (part + 1) * part_size)) if r not in skip]
        if not rows:
            continue
        counted = Counted(
            tuple(ids[r] for r in rows),
            tokens[rows].astype(np.int64),
            (members[rows] * tokens[rows, None]).astype(np.int32),
            (experts[rows] * tokens[rows, None]).astype(np.int32),
        )
        if more:
            counted = replace(
                counted,
                signs=np.stack([counted.neurons, counted.neurons]),
                magnitudes=Magnitudes.empty(len(rows), space.neurons, space.experts),
            )
        sets = _sets(counted, space)
        keys = rule.keys(
            store.corpus.table(["id", "category", "source", "origin", "cluster"]).take(rows),
            counted.tokens,
        )
        profile = part_profile(counted, sets, keys)
        kept = None if retain == "profile" else sets
        store_part(store, part, counted if retain == "counts" else None, kept, [], profile)
    store.write_manifest(
        manifest_of(
            space,
            n,
            status=status,
            stamps=stamps,
            cells=rule.to_json(),
            config={"retain": retain, **(config or {})},
        )
    )
    return Run(folder)


def _sets(counted: Counted, space: ComponentSpace) -> Sets:
    """Every component that fires at all, as sets."""
    members, experts = counted.neurons > 0, counted.experts > 0
    sizes = _group_sizes(members, neuron_groups(space, Selection()))
    expert_sizes = _group_sizes(experts, expert_groups(space, Selection()))
    return Sets(
        counted.ids,
        counted.tokens,
        pack(members),
        np.ones_like(sizes),
        sizes,
        pack(experts),
        np.ones_like(expert_sizes),
        expert_sizes,
        space,
    )


def _group_sizes(members: np.ndarray, groups: Sequence[Group]) -> np.ndarray:
    out = np.zeros((len(members), len(groups)), np.int32)
    for at, group in enumerate(groups):
        out[:, at] = sum(members[:, part].sum(1) for part in group.slices)
    return out
