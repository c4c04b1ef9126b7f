"""The page of a counted run, with all that it shows: analysis, traced examples, figures."""

from collections.abc import Callable

from sparcom.analysis.analyse import analyse
from sparcom.analysis.options import AnalysisOptions
from sparcom.config import RunConfig
from sparcom.report.page import render_report
from sparcom.store import Run
from sparcom.tracing.examples import why_not, write_examples


def write_page(
    location: str,
    options: AnalysisOptions | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> str:
    """Analyse a run, trace its examples, write its page; return the page's location.

    say: is told what is done. Raises InputError as `analyse` and `write_examples`.

    >>> write_page("runs/first")
    """
    say = say or (lambda text: None)
    run = Run(location)
    say("analysing")
    analyse(run, options)
    config = RunConfig.from_json(run.manifest["config"])
    if (reason := why_not(config)) is None:
        say("reading examples again, token by token")
        write_examples(run, config.examples, threads=config.cpus)
    elif config.examples:
        say(f"no traced examples: {reason}")
    say("writing the page")
    return render_report(location)
