"""The page of a run: one self-contained HTML file, and its figures as PNG and SVG."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np

from sparcom.analysis.analyse import analyse
from sparcom.analysis.options import AnalysisOptions
from sparcom.config import stored
from sparcom.formatting import printable
from sparcom.report import figures
from sparcom.report.section import Section
from sparcom.report.sections import make_sections
from sparcom.report.stored import stored_sections
from sparcom.store import Run


def write_report(location: str, options: AnalysisOptions | None = None) -> str:
    """Analyse a run; write analysis/, figures/ and report.html into it; return the page's location.

    Raises InputError where there is no run, or no set in it.
    """
    run, options = Run(location), options or AnalysisOptions()
    analysis = analyse(run, options)
    sections = make_sections(run, analysis) + stored_sections(run)
    drawings: dict[str, str] = {}
    for section in sections:
        for picture in section.pictures:
            drawings[picture.name] = figures.to_svg(picture.figure)
            png = figures.to_png(picture.figure)
            run.store.write_file(f"figures/{picture.name}.png", png)
            run.store.write_file(f"figures/{picture.name}.svg", drawings[picture.name].encode())
    warnings = [*_warnings(run), *analysis.warnings]
    page = render_page(run, sections, drawings, warnings, [*_facts(run), _drawn(options)])
    return run.store.write_file("report.html", page.encode("utf-8"))


def render_page(
    run: Run,
    sections: Sequence[Section],
    drawings: dict[str, str],
    warnings: Sequence[str],
    facts: Sequence[tuple[str, Any]],
) -> str:
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
    return environment.from_string(template).render(
        title=f"{model} on {run.labels.num_rows:,} instructions",
        lead=_lead(run),
        warnings=list(dict.fromkeys(warnings)),
        statements=[text for section in sections for text in section.statements],
        sections=sections,
        drawings=drawings,
        facts=facts,
    )


def _visible(value: Any) -> str:
    """A text with invisible characters, which could reorder what surrounds it, as escapes."""
    return value if hasattr(value, "__html__") else printable(str(value))


def _lead(run: Run) -> str:
    space, selection = run.space, run.manifest["selection"]
    parts = [f"{space.neurons:,} neurons"]
    if space.experts:
        parts.append(f"{space.experts:,} routed experts")
    return (
        f"{' and '.join(parts)} in {space.layers} layers, counted on "
        f"{int(run.labels['n_counted'].to_numpy().sum()):,} tokens; sets by rule "
        f"{selection['rule']}, ties {selection['ties']}."
    )


def _warnings(run: Run) -> list[str]:
    """What the run itself warns of; `analyse` adds its own."""
    warnings = []
    if failed := len(run.store.results.failures()):
        warnings.append(f"{failed} instructions failed and are not in it.")
    if skipped := run.manifest.get("skipped_rows", {}).get("count"):
        warnings.append(f"{skipped} bad rows of the corpus were left out.")
    if cut := int(np.asarray(run.labels["truncated"].to_pylist(), dtype=bool).sum()):
        warnings.append(f"{cut} prompts were cut to the model's context.")
    return warnings


def _limit(max_tokens: int | None) -> str:
    return "all its tokens" if max_tokens is None else f"at most {max_tokens} tokens"


def _drawn(options: AnalysisOptions) -> tuple[str, str]:
    return "analysis", (
        f"general from q = {options.high:g}, unique up to {options.low:g} elsewhere, FDR "
        f"{options.alpha:g}; {options.permutations} permutations, {options.bootstraps} bootstraps, "
        f"seed {options.seed}"
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
