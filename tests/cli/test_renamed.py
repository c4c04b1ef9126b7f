"""Flags of older versions: one error that names the new one, and nothing in --help."""

import pytest

from sparcom.cli.main import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "a", "b", "--floor", "x", "y"], "--floor: this flag has been renamed; use "
         "--noise-floor"),
        (["ablate", "a", "--set", "general"], "--set: this flag has been renamed; use --target"),
        (["ablate", "a", "--set=general"], "--set: this flag has been renamed; use --target"),
        (["ablate", "a", "--draws", "5"], "--draws: this flag has been renamed; use --random-sets"),
        (["report", "a", "--length-bins", "4"], "--length-bins: the length bins are those of the "
         "run, fixed before it is counted"),
        (["compare", "a", "b", "--length-bins=4"], "--length-bins: the length bins are those"),
        (["count", "--count-tokens", "3"], "--count-tokens: this flag has been renamed; use "
         "--max-tokens"),
    ],
)  # fmt: skip
def test_a_flag_that_is_gone_says_what_to_use(words, message, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["compare", "ablate", "report"])
def test_help_knows_the_new_names_alone(command, capsys) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    for gone in (" --floor", " --set ", "--length-bins"):
        assert gone not in said
