"""The page: one self-contained HTML file of one or several runs, and the figures beside it.

It is made from run.json and the tables in analysis/ alone. The charts and grids are drawn in the
browser by the libraries in vendor/, from the blocks in the page (`report.blocks`).
"""

import base64
import hashlib
from collections.abc import Sequence

from sparcom.analysis.analyse import analyse
from sparcom.analysis.options import AnalysisOptions
from sparcom.report.blocks import block_names, block_of, packed
from sparcom.report.run_view import RunView, run_view
from sparcom.report.templates import asset, template
from sparcom.store import Run

SCRIPTS = ("vendor/echarts.min.js", "vendor/ag-grid-community.min.js")
APP = ("base", "charts", "grids", "overview", "overlap", "depth", "units", "instructions", "main")
"""The page's own scripts, in the order in which they run."""
TOGETHER = "runs.html"
"""The page of several runs, in the last of them."""


def write_report(location: str | Sequence[str], options: AnalysisOptions | None = None) -> str:
    """Analyse a run; write analysis/, figures/ and report.html into it; return the page's location.

    location: of a run, or of several: then each has its own page, and the last one also has
    runs.html, on which all of them stand side by side; its location is returned.
    Raises InputError if there is no run, or none that can be analysed (`analyse`).
    """
    locations = [location] if isinstance(location, str) else list(location)
    for one in locations:
        analyse(Run(one), options)
    return render_report(locations)


def render_report(location: str | Sequence[str]) -> str:
    """Write figures/ and report.html from the tables in analysis/; return the page's location.

    location: as of `write_report`. Raises InputError if there is no run, or it was not analysed by
    this version.
    """
    views = [run_view(one) for one in ([location] if isinstance(location, str) else location)]
    for view in views:
        view.write_figures()
        page = view.run.store.write_file("report.html", render_page([view]).encode("utf-8"))
    if len(views) > 1:
        page = views[-1].run.store.write_file(TOGETHER, render_page(views).encode("utf-8"))
    return page


def render_page(views: Sequence[RunView], *, live: bool = False) -> str:
    """The HTML of a page. live: its blocks are asked of the server, in place of lying in it."""
    scripts = [asset(name) for name in SCRIPTS] + [app_script()]
    held = [] if live else [
        (f"data-{at}-{name}", packed(block_of(view.run, view.tables, name)))
        for at, view in enumerate(views)
        for name in block_names(view.tables)
    ]  # fmt: skip
    return template("page.html").render(
        title=views[0].title if len(views) == 1 else " | ".join(view.title for view in views),
        views=views,
        style=asset("app/page.css"),
        scripts=scripts,
        policy=_policy(scripts, live=live),
        blocks=held,
        live=live,
        pdf=lambda drawing: base64.b64encode(drawing.pdf).decode(),
    )


def app_script() -> str:
    """The page's own scripts as one."""
    body = "\n".join(asset(f"app/{name}.js") for name in APP)
    return f'(() => {{\n"use strict";\n{body}}})();'


def _policy(scripts: Sequence[str], *, live: bool) -> str:
    """The content security policy: these scripts and nothing else; nothing is loaded or sent."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    connect = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; font-src data:; connect-src {connect}; base-uri 'none'; "
        "form-action 'none'; object-src 'none'"
    )
