"""`sparcom count` and `sparcom run`: count a corpus; the report of it."""

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sparcom.cli.options import config_of

if TYPE_CHECKING:
    from sparcom.pipeline.run import RunSummary

Result = tuple[Any, int]
_PAGE = "report.html"


def count_command(arguments: argparse.Namespace) -> Result:
    """Count a corpus and select sets."""
    summary = _count(arguments)
    return _shown(summary, arguments.json), _code(summary)


def run_command(arguments: argparse.Namespace) -> Result:
    """Count a corpus, select sets, write the report."""
    summary = _count(arguments)
    page = _page_as_it_is(summary)
    if page is None:
        from sparcom.report.of_run import write_page  # imports what only a page needs

        page = write_page(summary.location, say=_say if arguments.progress else None)
    shown = _shown(summary, arguments.json)
    if arguments.json:
        return {**shown, "report": page}, _code(summary)
    return f"{shown}\nreport: {page}", _code(summary)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _count(arguments: argparse.Namespace) -> "RunSummary":
    from sparcom.pipeline.run import count

    return count(
        config_of(arguments),
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        check=arguments.check,
        progress=arguments.progress,
    )


def _page_as_it_is(summary: "RunSummary") -> str | None:
    """The page of a run in which nothing was counted now, and that was not changed since the page
    was written; None: it must be written."""
    from sparcom.store.files import Files

    if summary.parts:
        return None
    files = Files(summary.location)
    page, run = files.modified(_PAGE), files.modified("run.json")
    return f"{files.location}/{_PAGE}" if page and run and page > run else None


def _code(summary: "RunSummary") -> int:
    return 1 if summary.failed else 0


def _shown(summary: "RunSummary", as_json: bool) -> Any:
    if as_json:
        return asdict(summary)
    if not summary.parts:
        text = (
            f"nothing to do: all {summary.instructions} instructions are counted "
            f"({summary.seconds:.1f} s)\nrun: {summary.location}"
        )
    else:
        rate = summary.prompt_tokens / summary.seconds if summary.seconds else 0.0
        text = (
            f"{summary.instructions} instructions, {summary.tokens} counted tokens in "
            f"{summary.seconds:.1f} s ({rate:.0f} prompt tokens/s with start-up)\n"
            f"{_proved(summary.proof)}\n"
            f"{_chosen(summary.chosen)}"
            f"run: {summary.location}"
        )
    if summary.failed:
        text += f"\n{summary.failed} instructions failed: see {summary.location}/failed"
    return text


def _chosen(chosen: dict[str, Any]) -> str:
    """A line on the rows of a pass, if they were to be chosen."""
    if not chosen:
        return ""
    speeds = chosen["tokens_per_s"].items()
    measured = ", ".join(f"{rows} rows {speed:,.0f} tokens/s" for rows, speed in speeds)
    why = "; ".join(filter(None, (measured, chosen["why"])))
    return f"batch tokens: {chosen['batch_tokens']} ({why})\n"


def _proved(proof: dict[str, Any]) -> str:
    """Whether the counted pass was proved, and what that took."""
    if not proof.get("proved"):
        return f"model not proved: {proof.get('why', 'no part was counted')}"
    return f"model proved in {proof['seconds']:.1f} s; prompts: {proof['passes']}"
