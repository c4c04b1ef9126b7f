"""Writes the page of a study from the runs that are analysed."""

from collections.abc import Mapping

from sparcom.config import RunConfig
from sparcom.report.study_page import PairView, Side, render_study
from sparcom.report.tables import Tables
from sparcom.store import Run
from sparcom.store.files import Files
from sparcom.study.config import Pair, StudyConfig

PAGE = "study.html"


def write_study_page(study: StudyConfig, files: Files, problems: Mapping[str, str]) -> str | None:
    """Write study.html and figures/; return the page's location, or None if no run is analysed.

    problems: step -> why it was not done, shown at the top.
    """
    pairs = [_view(pair, problems) for pair in study.pairs]
    if not any(pair.sides for pair in pairs):
        return None
    name = files.location.rstrip("/").rsplit("/", 1)[-1]
    html, drawings = render_study(name, pairs, problems)
    for drawn, drawing in drawings.items():
        files.write_bytes(f"figures/{drawn}.png", drawing.png)
        files.write_bytes(f"figures/{drawn}.svg", drawing.svg.encode())
        files.write_bytes(f"figures/{drawn}.pdf", drawing.pdf)
    files.write_bytes(PAGE, html.encode("utf-8"))
    return f"{files.location}/{PAGE}"


def _view(pair: Pair, problems: Mapping[str, str]) -> PairView:
    base, tuned = (
        None if f"{pair.name}/report {side}" in problems else _side(config)
        for side, config in pair.sides.items()
    )
    return PairView(pair.name, base, tuned)


def _side(config: RunConfig) -> Side:
    run = Run(config.run_dir())
    folder = config.run_dir().rstrip("/").rsplit("/", 1)[-1]
    return Side(run, Tables(run), f"runs/{folder}/report.html")
