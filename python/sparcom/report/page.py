"""The page of a run: one self-contained HTML file, and its figures as PNG and SVG."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from sparcom.analysis.bitsets import intersections
from sparcom.analysis.layers import LayerHistogram, layer_histogram
from sparcom.analysis.overlap import (
    CategoryMatrix,
    SameDifferent,
    category_matrix,
    pair_matrix,
    same_different,
)
from sparcom.errors import InputError
from sparcom.report import figures
from sparcom.store import Run

_WHAT = {"neurons": "ISNs", "experts": "ISEs"}
_LONG = {"neurons": "instruction-specific neurons", "experts": "instruction-specific experts"}


@dataclass(frozen=True)
class Picture:
    """A figure of the page. name: of its files."""

    name: str
    figure: Figure
    caption: str
    svg: str = ""


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Section:
    title: str
    texts: list[str] = field(default_factory=list)
    figures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def write_report(location: str) -> str:
    """Write report.html and figures/ into a run directory; returns the page's location.

    Raises InputError where there is no run, or no set in it.
    """
    run = Run(location)
    labels = run.labels["category"].to_pylist()
    names = list(dict.fromkeys(run.store.corpus(["category"])["category"].to_pylist()))
    statements, sections = [], [_categories_section(run, names)]
    for family in ("neurons", "experts") if run.space.experts else ("neurons",):
        said, section = _family_section(run, family, labels, names)
        statements += said
        sections.append(section)
    pictures = [picture for section in sections for picture in section.figures]
    for picture in pictures:
        run.store.write_file(f"figures/{picture.name}.png", figures.to_png(picture.figure))
        run.store.write_file(f"figures/{picture.name}.svg", _svg(picture).encode())
    return run.store.write_file(
        "report.html", render_page(run, statements, sections).encode("utf-8")
    )


def _svg(picture: Picture) -> str:
    return figures.to_svg(picture.figure)


def render_page(run: Run, statements: Sequence[str], sections: Sequence[Section]) -> str:
    """The page's HTML; every text is escaped."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    shown = [
        {
            "title": s.title,
            "texts": s.texts,
            "tables": s.tables,
            "figures": [{"svg": _svg(p), "caption": p.caption} for p in s.figures],
        }
        for s in sections
    ]
    template = files("sparcom.report").joinpath("page.html").read_text("utf-8")
    model = run.manifest["model"]["path"].rstrip("/").rsplit("/", 1)[-1]
    return environment.from_string(template).render(
        title=f"{model} on {len(run.sets.ids):,} instructions",
        lead=_lead(run),
        warnings=_warnings(run),
        statements=statements,
        sections=shown,
        facts=_facts(run),
    )


def _lead(run: Run) -> str:
    space, selection = run.space, run.manifest["selection"]
    parts = [f"{space.neurons:,} neurons"]
    if space.experts:
        parts.append(f"{space.experts:,} routed experts")
    return (
        f"{' and '.join(parts)} in {space.layers} layers, counted on "
        f"{run.manifest['tokens']:,} tokens; sets by rule {selection['rule']}, ties "
        f"{selection['ties']}."
    )


def _warnings(run: Run) -> list[str]:
    warnings = []
    if run.manifest["status"] != "complete":
        warnings.append("This run is not complete: finish it with --resume.")
    if run.manifest.get("failed"):
        warnings.append(f"{run.manifest['failed']} instructions failed and are not in it.")
    cut = int(np.asarray(run.labels["truncated"].to_pylist(), dtype=bool).sum())
    if cut:
        warnings.append(f"{cut} prompts were cut to the model's context.")
    empty = int((run.sets.sizes.sum(1) == 0).sum())
    if empty:
        warnings.append(f"{empty} instructions have an empty neuron set.")
    return warnings


def _categories_section(run: Run, names: Sequence[str]) -> Section:
    """How much of each category was counted, and how large its sets came out."""
    labels = np.asarray(run.labels["category"].to_pylist())
    tokens = run.labels["n_counted"].to_numpy()
    sizes = run.sets.sizes.sum(1) / run.space.neurons
    rows = []
    for name in names:
        of = labels == name
        if of.any():
            rows.append(
                (name, f"{of.sum():,}", f"{tokens[of].sum():,}", f"{np.median(tokens[of]):.0f}",
                 f"{sizes[of].mean():.2%}", f"{sizes[of].min():.2%} to {sizes[of].max():.2%}")
            )  # fmt: skip
    head = ("category", "instructions", "counted tokens", "median T", "mean set size", "range")
    text = (
        "A set's size is its share of all neurons. The frequencies of an instruction of T tokens "
        "have T + 1 values, so that a cut falls into a group of ties: short instructions get sets "
        "that are larger than the rule's nominal size."
    )
    return Section("Categories", [text], tables=[Table(head, rows)])


def _family_section(
    run: Run, family: str, labels: Sequence[str], names: Sequence[str]
) -> tuple[list[str], Section]:
    bits = run.sets.neurons if family == "neurons" else run.sets.experts
    what, section = _WHAT[family], Section(f"{_WHAT[family]}: {_LONG[family]}")
    values = pair_matrix(intersections(bits))
    matrix = category_matrix(values, labels, [n for n in names if n in set(labels)])
    section.figures.append(
        Picture(
            f"{family}-categories",
            figures.category_heatmap(matrix, f"Overlap of {what} between categories"),
            "Mean Jaccard overlap over all pairs of two different instructions, one of the row's "
            "category and one of the column's.",
        )
    )
    statements = []
    try:
        split = same_different(values, labels)
    except InputError as error:
        section.texts.append(f"Same against different type: {error}.")
    else:
        statements.append(_same_statement(what, split, matrix))
        section.figures.append(
            Picture(
                f"{family}-same-different",
                figures.same_different(split, f"Same type against different type, {what}"),
                "Each pair of instructions once. Dashed: the means.",
            )
        )
    histogram = layer_histogram(bits, run.space, labels, family, matrix.categories)
    statements.append(_layer_statement(what, histogram))
    section.figures.append(
        Picture(
            f"{family}-layers",
            figures.layer_curves(histogram, f"{what} over depth", what),
            "Mean number in an instruction's set, per layer and category, with 95 % intervals over "
            "instructions. Dotted: the same number spread evenly over all components.",
        )
    )
    return statements, section


def _same_statement(what: str, split: SameDifferent, matrix: CategoryMatrix) -> str:
    inner = np.diagonal(matrix.mean)
    known = np.isfinite(inner)
    tightest = matrix.categories[int(np.where(known, inner, -1).argmax())]
    return (
        f"Two instructions of the same type share more {what} than two of different types: mean "
        f"Jaccard {split.same.mean:.3f} against {split.different.mean:.3f}; a random same-type "
        f"pair overlaps more than a random different-type pair with probability "
        f"{split.superiority:.2f}. The most coherent category is {tightest} "
        f"({np.nanmax(inner):.3f})."
        if split.difference > 0
        else f"Instructions of the same type share no more {what} than instructions of different "
        f"types: mean Jaccard {split.same.mean:.3f} against {split.different.mean:.3f}."
    )


def _layer_statement(what: str, histogram: LayerHistogram) -> str:
    share = histogram.share.mean(0)
    layers = np.unique(histogram.layers)
    per_layer = np.array([share[histogram.layers == layer].sum() for layer in layers])
    even = np.array([histogram.chance[histogram.layers == layer].sum() for layer in layers])
    top = per_layer.argsort()[::-1][:3]
    named = ", ".join(f"layer {layers[i]} ({per_layer[i]:.0%})" for i in top)
    return f"Most {what} lie in {named}; an even spread would give {even[top].mean():.0%} each."


def _facts(run: Run) -> list[tuple[str, Any]]:
    m, config = run.manifest, run.manifest["config"]
    engine = m.get("engine", {})
    return [
        ("model", m["model"]["path"]),
        ("weights, sha256", m["model"]["weights"]),
        ("corpus", config["corpus"]),
        ("tokens, sha256", m["corpus"]["hash"]),
        ("engine", f"{engine.get('name')} on {engine.get('device')}, {engine.get('dtype')}, "
                   f"{engine.get('threads')} threads, {engine.get('batch_tokens')} rows a pass"),
        ("template, scope", f"{config['template']}, {config['scope']}"),
        ("a neuron fires", _fires(config)),
        ("retained", config["retain"]),
        ("time", f"{m.get('seconds', 0):.1f} s; {m.get('actor_seconds', 0):.1f} s in actors"),
        ("versions", ", ".join(f"{k} {v}" for k, v in engine.get("versions", {}).items())),
        ("created", m["created"]),
    ]  # fmt: skip


def _fires(config: dict[str, Any]) -> str:
    what = "f(gate)" if config["signal"] == "gate" else "f(gate) * up"
    return f"where {what} exceeds {config['threshold']:g}"
