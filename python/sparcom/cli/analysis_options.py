"""The options of an analysis as flags, for `sparcom report` and `sparcom compare`."""

import argparse
from dataclasses import fields
from typing import Any

from sparcom.analysis.options import AnalysisOptions
from sparcom.cli.renamed import add_gone
from sparcom.config import flag

_HELP = {
    "alpha": "false discovery rate of the component tests",
    "high": "prevalence from which a component is general, or unique to a category",
    "low": "prevalence that a unique component may have in other categories",
    "least_difference": "how much more than every other category a specific component fires",
    "always_on": "share of tokens from which a component is always on",
    "baseline": "a run of the same model on plain text, which says what is always on",
    "permutations": "draws of the nulls",
    "bootstraps": "draws of the intervals",
    "seed": "of every draw",
}


def add_analysis_options(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; an absent one leaves no trace: the field's default stays."""
    group = parser.add_argument_group("analysis")
    for field in fields(AnalysisOptions):
        if field.name in _HELP:
            kind: Any = field.type
            group.add_argument(
                flag(field.name), type=kind, default=argparse.SUPPRESS,
                metavar=kind.__name__.upper(),
                help=f"{_HELP[field.name]} (default: {field.default})",
            )  # fmt: skip
    gone = "the length bins are those of the run, fixed before it is counted; leave the flag out"
    add_gone(parser, "--length-bins", gone)
    every = "every component is tested now; leave the flag out"
    add_gone(parser, "--min-prevalence", every)


def analysis_options(arguments: argparse.Namespace) -> AnalysisOptions:
    """The options that the flags name. Raises InputError if one is out of range."""
    return AnalysisOptions(**{n: getattr(arguments, n) for n in _HELP if n in arguments})
