"""`sparcom doctor`: what this machine can do, and why not more."""

import argparse
from typing import Any


def doctor_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Examine this machine."""
    from sparcom.doctor import examine, render

    facts = examine()
    return ({"facts": facts} if arguments.json else render(facts)), 0
