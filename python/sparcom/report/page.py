"""The page of a run: one self-contained HTML file, and its figures as PNG and SVG.

It is made from run.json and the tables in analysis/ alone.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2

from sparcom.analysis.analyse import analyse
from sparcom.analysis.options import AnalysisOptions
from sparcom.config import stored
from sparcom.errors import InputError
from sparcom.formatting import printable
from sparcom.report import figures
from sparcom.report.ablation_section import ablation_sections
from sparcom.report.alteration_section import alteration_sections
from sparcom.report.category_section import category_section
from sparcom.report.component_section import component_sections
from sparcom.report.decoding_section import decoding_sections
from sparcom.report.format import in_layers
from sparcom.report.overlap_section import overlap_sections
from sparcom.report.section import Section
from sparcom.report.stability_section import stability_sections
from sparcom.report.tables import Row, Tables
from sparcom.report.trajectory_section import trajectory_sections
from sparcom.store import Run


def write_report(location: str, options: AnalysisOptions | None = None) -> str:
    """Analyse a run; write analysis/, figures/ and report.html into it; return the page's location.

    Raises InputError if there is no run, or none that can be analysed (`analyse`).
    """
    analyse(Run(location), options)
    return render_report(location)


def render_report(location: str) -> str:
    """Write figures/ and report.html from the tables in analysis/; return the page's location.

    Raises InputError if there is no run, or it was not analysed by this version.
    """
    run = Run(location)
    tables = Tables(run)
    if not tables.rows("analysis_options"):
        raise InputError(
            f"{run.store.location}: no analysis of this version in this run; write one with "
            f"sparcom report {run.store.location}"
        )
    sections = [
        category_section(tables),
        *overlap_sections(tables),
        *stability_sections(tables),
        *decoding_sections(tables),
        *component_sections(tables),
        *alteration_sections(tables),
        *trajectory_sections(tables),
        *ablation_sections(tables),
    ]
    drawings: dict[str, str] = {}
    for section in sections:
        for picture in section.pictures:
            drawings[picture.name] = figures.to_svg(picture.figure)
            png = figures.to_png(picture.figure)
            run.store.write_file(f"figures/{picture.name}.png", png)
            run.store.write_file(f"figures/{picture.name}.svg", drawings[picture.name].encode())
    page = _render(run, tables, sections, drawings)
    return run.store.write_file("report.html", page.encode("utf-8"))


def _render(run: Run, tables: Tables, sections: Sequence[Section], drawings: dict[str, str]) -> str:
    """The page's HTML. drawings: picture name -> <svg>; every other text is escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
    )
    template = files("sparcom.report").joinpath("page.html").read_text("utf-8")
    model = run.manifest["model"]["path"].rstrip("/").rsplit("/", 1)[-1]
    categories = tables.rows("categories")
    instructions = sum(row["instructions"] for row in categories)
    return environment.from_string(template).render(
        title=f"{model} on {instructions:,} instructions",
        lead=_lead(run, sum(row["tokens"] for row in categories)),
        warnings=[row["warning"] for row in tables.rows("analysis_warnings")],
        statements=[text for section in sections for text in section.statements],
        sections=sections,
        drawings=drawings,
        facts=[*_facts(run), _drawn(tables.row("analysis_options"))],
    )


def _visible(value: Any) -> str:
    """A text with invisible characters, which could reorder what surrounds it, as escapes."""
    return value if hasattr(value, "__html__") else printable(str(value))


def _lead(run: Run, tokens: int) -> str:
    space, selection = run.space, run.manifest["selection"]
    parts = [f"{space.neurons:,} neurons"]
    if space.experts:
        parts.append(f"{space.experts:,} routed experts")
    return (
        f"{' and '.join(parts)} in {in_layers((s.layer for s in space.sites), run.layers)}, "
        f"counted on {tokens:,} tokens; sets by rule {selection['rule']}, ties {selection['ties']}."
    )


def _limit(max_tokens: int | None) -> str:
    return "all its tokens" if max_tokens is None else f"at most {max_tokens} tokens"


def _drawn(options: Row) -> tuple[str, str]:
    return "analysis", (
        f"general from q = {options['high']:g}, unique up to {options['low']:g} elsewhere, FDR "
        f"{options['alpha']:g}, specific from {options['least_difference']:g}; "
        f"{options['permutations']} permutations, {options['bootstraps']} bootstraps, seed "
        f"{options['seed']}"
    )


def _facts(run: Run) -> list[tuple[str, Any]]:
    m, config = run.manifest, run.manifest["config"]
    engine = m.get("engine", {})
    how = (
        f"{engine.get('name')} on {engine.get('device')}, {engine.get('dtype')}, "
        f"{engine.get('threads')} threads, {engine.get('batch_tokens')} rows a pass"
    )
    what = "f(gate)" if config["signal"] == "gate" else "f(gate) * up"
    return [
        ("model", m["model"]["path"]),
        ("weights, sha256", m["model"]["weights"]),
        ("corpus", config["corpus"]),
        ("tokens, sha256", m["corpus"]["hash"]),
        ("engine", how),
        ("template, scope", f"{config['template']}, {config['scope']}"),
        ("counted of each", _limit(stored(config).get("max_tokens"))),
        ("a neuron fires", f"where {what} exceeds {config['threshold']:g}"),
        ("retained", config["retain"]),
        ("time", f"{m.get('seconds', 0):.1f} s; {m.get('actor_seconds', 0):.1f} s in actors"),
        ("versions", ", ".join(f"{k} {v}" for k, v in engine.get("versions", {}).items())),
        ("created", m["created"]),
    ]
