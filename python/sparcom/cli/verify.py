"""`sparcom verify`: prove on demand that the pass which is counted is the model's own."""

import argparse
from dataclasses import asdict, fields
from typing import Any

from sparcom.cli.options import add_field
from sparcom.config import RunConfig
from sparcom.errors import InputError
from sparcom.formatting import render_table

_LONGEST = 8192  # tokens of a prompt that exceeds the model's windows
_KEYS = ("engine", "dtype", "trust_remote_code", "slots", "cpus")


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", help=next(f for f in fields(RunConfig)).metadata["help"])
    for f in fields(RunConfig):
        if f.name in _KEYS:
            add_field(parser, f)


def verify_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Load a model, prove it, and show how each layer agrees.

    Raises InputError for a model that is not counted as it runs.
    """
    from sparcom.engines.load import load_engine
    from sparcom.engines.transformers.loading import read_model
    from sparcom.planning.options import engine_options

    given = {name: getattr(arguments, name) for name in _KEYS if name in arguments}
    config = RunConfig(model=arguments.model, **given)
    options = engine_options(config)
    read_model(options)
    engine = load_engine(config.engine, options, longest=_LONGEST)
    engine.close()
    if engine.proof is None:
        raise InputError(f"model {config.model}: not proved: {engine.info.proof['why']}")
    said = {"model": config.model, "engine": config.engine, "dtype": engine.info.dtype}
    facts = {**said, **asdict(engine.proof)}
    return (facts if arguments.json else _render(facts)), 0


def _render(facts: dict[str, Any]) -> str:
    """One line a site, and what they say together."""
    head = ("site", "difference", "tolerance", "counts differ", "near-zero gates", "rerouted")
    rows = [
        (
            site["site"],
            f"{100 * site['difference']:.2g} %",
            f"{100 * site['tolerance']:.2g} %",
            f"{site['differing']} of {site['compared']}",
            str(site["near_zero"]),
            str(site["rerouted"]),
        )
        for site in facts["sites"]
    ]
    lengths = " and ".join(map(str, facts["lengths"]))
    text = [
        render_table(head, rows),
        "",
        f"{facts['model']} on {facts['engine']} in {facts['dtype']}: the pass is the model's own",
        f"against {facts['against']}; prompts of {lengths} tokens, {facts['passes']}; "
        f"{facts['seconds']:.1f} s",
    ]
    if facts["windows"]:
        windows = ", ".join(f"{name} {length}" for name, length in facts["windows"].items())
        text.append(f"windows shortened for the proof: {windows}")
    return "\n".join(text)
