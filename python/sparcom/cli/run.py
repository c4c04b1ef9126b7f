"""`sparcom count` and `sparcom run`: count a corpus; the report of it."""

import argparse
from dataclasses import asdict
from typing import Any

from sparcom.cli.options import config_of

Result = tuple[Any, int]


def count_command(arguments: argparse.Namespace) -> Result:
    """Count a corpus and select sets."""
    from sparcom.pipeline.run import count

    summary = count(
        config_of(arguments),
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        progress=arguments.progress,
    )
    rate = summary.prompt_tokens / summary.seconds if summary.seconds else 0.0
    text = (
        f"{summary.instructions} instructions, {summary.tokens} counted tokens in "
        f"{summary.seconds:.1f} s ({rate:.0f} prompt tokens/s with start-up)\n"
        f"{_proved(summary.proof)}\n"
        f"run: {summary.location}"
    )
    if summary.failed:
        text += f"\n{summary.failed} instructions failed: see {summary.location}/failed"
    return (asdict(summary) if arguments.json else text), 1 if summary.failed else 0


def _proved(proof: dict[str, Any]) -> str:
    """Whether the counted pass was proved, and what that took."""
    if not proof.get("proved"):
        return f"model not proved: {proof.get('why', 'no part was counted')}"
    return f"model proved in {proof['seconds']:.1f} s; prompts: {proof['passes']}"


def run_command(arguments: argparse.Namespace) -> Result:
    """Count a corpus, select sets, write the report."""
    from sparcom.report.page import write_report

    counted, code = count_command(arguments)
    location = counted["location"] if arguments.json else config_of(arguments).run_dir()
    page = write_report(location)
    if arguments.json:
        return {**counted, "report": page}, code
    return f"{counted}\nreport: {page}", code
