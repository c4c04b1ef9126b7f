"""Pages of the reference that are made from the code when the site is built."""

import argparse
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from sparcom.cli.main import _parser as cli_parser
from sparcom.config import RunConfig

KEYS = {f.name for f in fields(RunConfig)}


def cell(text: str) -> str:
    """Text that stays within one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def config_page() -> str:
    """Every key of a run's configuration, in one table."""
    rows = []
    for f in fields(RunConfig):
        if "group" in f.metadata:
            rows.append([f"**{f.metadata['group']}**", "", "", ""])
        text = cell(f.metadata["help"])
        if choices := f.metadata.get("choices"):
            text += ": " + ", ".join(f"`{c}`" for c in choices)
        if f.metadata.get("vllm"):
            text += " (engine `vllm` only)"
        affects = f.metadata["affects"] if f.metadata["affects"] != "nothing" else ""
        rows.append([f"`{f.name}`", default_of(f), affects, text])
    return f"""# Configuration keys

Every key is three things at once: a key of a TOML file (`sparcom run --config run.toml`), a flag of
`sparcom run` and `sparcom count` (`max_tokens` is `--max-tokens`), and an argument of
`sparcom.RunConfig`. A flag overrides the file. An unknown key is an error that names the nearest
one. In a TOML file the keys have no sections: the bold rows below only group them.

*Affects* says what a key decides: the *prompts* (which tokens are read and counted), the *counts*
of given tokens, or the *sets* that are selected from counts. An empty field decides nothing that is
stored: it may change when a run is resumed.

{table(["key", "default", "affects", "meaning"], rows)}
"""


def default_of(f: Any) -> str:
    """A field's default as TOML would have it; an empty cell where there is none."""
    if f.default is MISSING or f.default is None or f.default == () or f.default == "":
        return ""
    return f"`{str(f.default).lower() if isinstance(f.default, bool) else f.default}`"


def cli_page() -> str:
    """Every command with its usage and options."""
    sections = [
        """# Command line

Exit codes: 0 done, 1 a failure, 2 wrong usage or input, 130 interrupted. Results go to standard
output; progress and errors go to standard error. Every command knows `--help` and `--json`, which
prints one JSON object instead of text.
"""
    ]
    for name, parser in commands(cli_parser()):
        sections.append(f"## {name}\n\n{sentence(parser.description)}\n\n{usage(name, parser)}")
        configured = name in ("sparcom run", "sparcom count")
        listed = [
            [option(action), value(action), cell(meaning(action))]
            for action in sorted(parser._actions, key=lambda a: bool(a.option_strings))
            if action.dest not in ("help", "json") and not (configured and action.dest in KEYS)
        ]
        if listed:
            sections.append(table(["argument", "value", "meaning"], listed))
        if configured:
            sections.append(
                "Every [configuration key](config.md) is a flag too: `max_tokens` is "
                "`--max-tokens`."
            )
    return "\n\n".join(sections) + "\n"


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(full name, parser) of each command that does something."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield parser.prog, parser
    for action in below:
        for inner in action.choices.values():
            yield from commands(inner)


def usage(name: str, parser: argparse.ArgumentParser) -> str:
    """The command with its positional arguments."""
    words = [name]
    for action in parser._actions:
        if not action.option_strings:
            words.append(parser._get_formatter()._format_args(action, action.dest.upper()))
    return f"```sh\n{' '.join(words)} [OPTIONS]\n```"


def option(action: argparse.Action) -> str:
    """How an argument is written."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest.upper()}`"
    return ", ".join(f"`{name}`" for name in action.option_strings)


def value(action: argparse.Action) -> str:
    """What an argument takes: its choices, or the placeholder of its value."""
    if action.choices:
        return ", ".join(f"`{choice}`" for choice in action.choices)
    if not action.option_strings or action.nargs == 0:
        return ""
    times = action.nargs if isinstance(action.nargs, int) else 1
    return " ".join([str(action.metavar or action.dest.upper())] * times)


def meaning(action: argparse.Action) -> str:
    """The help of an argument, with its default."""
    text = (action.help or "").replace("%%", "%")
    none = action.default in (None, False, argparse.SUPPRESS) or action.default == []
    if not none and action.option_strings and "default" not in text:
        text += f" (default: {action.default})"
    return text.strip()


def sentence(text: str | None) -> str:
    """A description as a sentence."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""
