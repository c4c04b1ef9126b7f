"""Stability: how the headline moves with choices that could as well have been made otherwise.

The adjusted category effect on ISNs, with sets selected again from stored counts by rules of other
sizes, by lift, with other ties, and within each third of the instructions by T. What a count
means, its threshold and the most tokens that are counted, cannot be changed after counting.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.bitsets import intersections, set_sizes
from sparcom.analysis.data.load import Loaded
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.category_effect import adjusted_design, effect_estimate
from sparcom.analysis.overlap.measures import pair_matrix
from sparcom.analysis.overlap.pair_design import PairDesign
from sparcom.analysis.stats.estimate import Estimate, estimate_table
from sparcom.analysis.stats.exchange import make_nodes
from sparcom.counting.counted import Counted
from sparcom.selection.bits import TIES
from sparcom.selection.lift import Baseline
from sparcom.selection.rules import Selection, identify
from sparcom.store import Run

SIZES = ("0.005", "0.01", "0.02", "0.05")
"""The sizes of rules."""
LIFT = "lift:0.01"
"""Ranks neurons over all instructions of the run, beside the percentile of the others."""
LIMIT = 20_000_000_000
"""Bytes of sets that all pairs may read for one setting; beyond, stability is left out."""
AS_RUN = "as run"
THIRDS = ("shortest third", "middle third", "longest third")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The headline under one setting.

    varied: "as run", "rule", "ties" or "length"; setting: its value, as text.
    instructions: with sets that are not empty. set_size: mean share of all neurons.
    overlap: mean Jaccard of all pairs of two clusters. effect: the adjusted effect, without p: the
    same question asked again is no further test.
    """

    varied: str
    setting: str
    instructions: int
    set_size: float
    overlap: float
    effect: Estimate


def why_no_stability(run: Run, loaded: Loaded) -> str:
    """The reason to leave stability out; "" if there is none."""
    if not loaded.bits:
        return "the run retains no sets"
    if not run.store.results.parts("counts"):
        return "the run retains no counts: count it again with --retain counts"
    bits = loaded.bits["neurons"]
    if len(bits) * bits.size > LIMIT:
        return f"{len(bits)} sets of {run.space.neurons} neurons would take too long"
    return ""


def stability(run: Run, loaded: Loaded, options: AnalysisOptions) -> tuple[Setting, ...]:
    """The headline of a run under every setting; `why_no_stability` must have no reason.

    Relabellings are `small_draws`. It costs one more pass over the counts.
    """
    own = Selection(**run.manifest["selection"])
    settings = dict(_settings(own))
    bits = _select(run, loaded, list(settings.values()))
    own_bits, headline = loaded.bits["neurons"], _Headline(loaded, options)
    everyone = np.arange(len(loaded.sample))
    out = [headline.of(own_bits, everyone, AS_RUN, own.rule)]
    for (varied, text), selection in settings.items():
        out.append(headline.of(bits[selection], everyone, varied, text))
    order = np.argsort(loaded.labels.tokens[loaded.sample], kind="stable")
    for name, rows in zip(THIRDS, np.array_split(order, 3), strict=True):
        out.append(headline.of(own_bits, np.sort(rows), "length", name))
    return tuple(out)


def _settings(own: Selection) -> Iterator[tuple[tuple[str, str], Selection]]:
    """((what is varied, its value), selection); the kind of rule is the run's if it has a size."""
    kind = own.rule.partition(":")[0]
    sized = kind in ("top", "per-layer")
    for size in SIZES:
        rule = f"{kind if sized else 'top'}:{size}"
        yield ("rule", rule), replace(own, rule=rule)
    yield ("rule", LIFT), replace(own, rule=LIFT)
    for ties in TIES if sized else ():
        yield ("ties", ties), replace(own, ties=ties)


def _select(
    run: Run, loaded: Loaded, selections: Sequence[Selection]
) -> dict[Selection, np.ndarray]:
    """Selection -> [k, bytes] packed neurons of the sample, selected from stored counts."""
    place = {loaded.labels.ids[row]: at for at, row in enumerate(loaded.sample)}
    out = {one: np.zeros_like(loaded.bits["neurons"]) for one in selections}
    cells, sums = run.store.profiles.read(("category",), ("neuron_counts",))
    tokens = int(cells["tokens"].to_numpy().sum())
    baseline = Baseline(sums["neuron_counts"].sum(0, dtype=np.int64), tokens)
    for _, counted in run.store.results.counts():
        rows = [row for row, name in enumerate(counted.ids) if name in place]
        part = Counted(
            tuple(counted.ids[row] for row in rows),
            counted.tokens[rows],
            counted.neurons[rows],
            counted.experts[rows],
        )
        at = [place[name] for name in part.ids]
        for selection, bits in out.items():
            bits[at] = identify(part, run.space, selection, baseline).neurons
    return out


class _Headline:
    """The headline of some sets; settings that leave the same instructions share a design."""

    def __init__(self, loaded: Loaded, options: AnalysisOptions) -> None:
        self._loaded, self._options = loaded, options
        self._designs: dict[bytes, PairDesign] = {}

    def of(self, bits: np.ndarray, rows: np.ndarray, varied: str, text: str) -> Setting:
        """The headline of packed sets [k, bytes] of the sample, on some of its rows."""
        sizes = set_sizes(bits)
        rows = rows[sizes[rows] > 0]
        effect, overlap = Estimate(None), float("nan")
        if len(rows) > 1:
            design, values = self._design(rows), pair_matrix(intersections(bits[rows]))
            overlap = design.mean(values)
            effect = replace(effect_estimate(design.effects(values), design), p=None)
        neurons = self._loaded.memberships["neurons"].members.shape[1]
        return Setting(
            varied=varied,
            setting=text,
            instructions=len(rows),
            set_size=float(sizes[rows].mean() / neurons) if len(rows) else float("nan"),
            overlap=overlap,
            effect=effect,
        )

    def _design(self, rows: np.ndarray) -> PairDesign:
        key = rows.tobytes()
        if key not in self._designs:
            at = self._loaded.sample[rows]
            labels, strata = self._loaded.labels.take(at), self._loaded.strata.take(at)
            nodes = make_nodes(labels.codes, labels.clusters, strata.sources_of, labels.tokens)
            rng = np.random.default_rng(self._options.seed)
            relabelled = nodes.permuted(self._options.small_draws, rng)
            lexical = self._loaded.lexical[np.ix_(rows, rows)]
            self._designs[key] = adjusted_design(strata, labels.tokens, lexical, nodes, relabelled)
        return self._designs[key]


def stability_table(found: Sequence[Setting]) -> pa.Table:
    """One row per setting: the headline under it."""
    columns: Mapping[str, pa.Array] = {
        "varied": pa.array([one.varied for one in found], pa.string()),
        "setting": pa.array([one.setting for one in found], pa.string()),
        "instructions": pa.array([one.instructions for one in found], pa.int64()),
        "set_size": pa.array([one.set_size for one in found], pa.float64(), from_pandas=True),
        "overlap": pa.array([one.overlap for one in found], pa.float64(), from_pandas=True),
    }
    return estimate_table(columns, [one.effect for one in found])
