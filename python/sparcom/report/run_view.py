"""Everything of one run that the page shows, from run.json and the tables in analysis/ alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparcom.config import stored
from sparcom.errors import InputError
from sparcom.report import figures
from sparcom.report.ablation_section import ablation_sections
from sparcom.report.agreement_section import agreement_sections
from sparcom.report.alteration_section import alteration_sections
from sparcom.report.category_section import category_section
from sparcom.report.component_section import component_sections
from sparcom.report.decoding_section import decoding_sections
from sparcom.report.findings import Finding, findings
from sparcom.report.format import in_layers
from sparcom.report.overlap_section import overlap_sections
from sparcom.report.section import Section
from sparcom.report.stability_section import stability_sections
from sparcom.report.tables import Row, Tables
from sparcom.report.trajectory_section import trajectory_sections
from sparcom.store import Run


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure in the three forms in which it is written: svg an <svg> element, png, pdf files."""

    svg: str
    png: bytes
    pdf: bytes


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as the page shows it.

    name: the run's directory; title, lead: what was counted. warnings, findings, sections: text.
    drawings: name of a picture -> its figure. facts: (name, value) of the last table.
    """

    run: Run
    tables: Tables
    name: str
    title: str
    lead: str
    warnings: list[str]
    findings: list[Finding]
    sections: list[Section]
    drawings: dict[str, Drawing]
    facts: list[tuple[str, Any]]

    @property
    def statements(self) -> list[str]:
        return [text for section in self.sections for text in section.statements]

    def write_figures(self) -> None:
        """Write figures/*.png, *.svg and *.pdf into the run."""
        for name, drawing in self.drawings.items():
            self.run.store.write_file(f"figures/{name}.png", drawing.png)
            self.run.store.write_file(f"figures/{name}.svg", drawing.svg.encode())
            self.run.store.write_file(f"figures/{name}.pdf", drawing.pdf)


def run_view(location: str) -> RunView:
    """Open an analysed run.

    Raises InputError if there is no run, or it was not analysed by this version.
    """
    run = Run(location)
    tables = Tables(run)
    if not tables.rows("analysis_options") or not tables.rows("instructions"):
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
        *agreement_sections(tables),
        *alteration_sections(tables),
        *trajectory_sections(tables),
        *ablation_sections(tables),
    ]
    categories = tables.rows("categories")
    model = run.manifest["model"]["path"].rstrip("/").rsplit("/", 1)[-1]
    return RunView(
        run=run,
        tables=tables,
        name=run.store.location.rstrip("/").rsplit("/", 1)[-1],
        title=f"{model} on {sum(row['instructions'] for row in categories):,} instructions",
        lead=_lead(run, sum(row["tokens"] for row in categories)),
        warnings=[row["warning"] for row in tables.rows("analysis_warnings")],
        findings=findings(tables),
        sections=sections,
        drawings=drawings_of(sections),
        facts=[*_facts(run), _drawn(tables.row("analysis_options"))],
    )


def drawings_of(sections: Sequence[Section]) -> dict[str, Drawing]:
    """The figures of some sections, by name, in every form."""
    return {
        picture.name: Drawing(
            svg=figures.to_svg(picture.figure),
            png=figures.to_png(picture.figure),
            pdf=figures.to_pdf(picture.figure),
        )
        for section in sections
        for picture in section.pictures
    }


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
