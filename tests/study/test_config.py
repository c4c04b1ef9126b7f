"""Configs of studies: what they say, and what is refused in one line."""

from pathlib import Path

import pytest

from sparcom.errors import InputError
from sparcom.study.config import load_study

CONFIGS = Path(__file__).parents[2] / "configs"
GOOD = '[[pair]]\nname = "a"\nbase = "default"\ntuned = "other/model"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "s.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_papers_eight_models() -> None:
    study = load_study(CONFIGS / "paper.toml")
    models = [config.model for pair in study.pairs for config in pair.sides.values()]
    assert models == [
        "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-chat-hf",
        "meta-llama/Llama-2-13b-hf", "meta-llama/Llama-2-13b-chat-hf",
        "mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.1",
        "Qwen/Qwen1.5-MoE-A2.7B", "Qwen/Qwen1.5-MoE-A2.7B-Chat",
    ]  # fmt: skip
    assert all(pair.tune is None for pair in study.pairs)
    bases = [pair.base for pair in study.pairs]
    assert [base.template for base in bases] == [f"from:{pair.tuned.model}" for pair in study.pairs]
    assert [base.out for base in bases] == [f"runs/paper/runs/{p.name}-base" for p in study.pairs]


def test_the_small_study_tunes_its_own_siblings() -> None:
    study = load_study(CONFIGS / "small.toml", out="elsewhere")
    assert [pair.base.model for pair in study.pairs] == ["default", "tiny-moe"]
    for pair in study.pairs:
        assert pair.tune is not None
        assert pair.tuned.model == f"elsewhere/models/{pair.name}-tuned"
        assert pair.base.limit == pair.tuned.limit == 20
    assert study.ablate is not None
    assert study.ablate.targets == ("specific:20:MATH",)


def test_what_is_nearer_to_a_model_wins(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('model = "from/file"\nlimit = 3\nout = "own"\n', "utf-8")
    study = load_study(
        written(
            tmp_path,
            'out = "o"\n[run]\nlimit = 5\npart-size = 7\n[ablate]\nlimit = 0\n'
            '[[pair]]\nname = "a"\nbase = "m.toml"\ntuned = {model = "t", part_size = 9}\n',
        )
    )
    ((base, tuned),) = ((pair.base, pair.tuned) for pair in study.pairs)
    assert (base.model, base.limit, base.part_size, base.out) == (
        "from/file",
        3,
        7,
        "o/runs/a-base",
    )
    assert (tuned.model, tuned.limit, tuned.part_size) == ("t", 5, 9)
    assert study.ablate is not None
    assert (study.ablate.limit, study.ablate.answer_tokens) == (None, 32)


def test_the_folder_is_named_after_the_file(tmp_path: Path) -> None:
    assert load_study(written(tmp_path, GOOD)).out == "runs/s"


BAD = {
    "no pair": ("out = 'x'", r"expected one \[\[pair\]\] or more"),
    "unknown key": (f"outt = 'x'\n{GOOD}", "unknown key 'outt'; did you mean 'out'"),
    "unknown key of a pair": (f"{GOOD}tunned = 'x'", "pair 1: unknown key 'tunned'; .*'tuned'"),
    "unknown key of runs": (f"[run]\nlimitt = 3\n{GOOD}", "run: unknown key 'limitt'; .*'limit'"),
    "unknown option": (f"[ablate]\nsets = 3\n{GOOD}", "ablate: unknown key 'sets'"),
    "unknown tune": (
        "[[pair]]\nname = 'a'\nbase = 'b'\ntune = {step = 3}",
        "pair 1 .a.: tune: unknown key 'step'; did you mean 'steps'",
    ),
    "wrong type": (f"[run]\nlimit = 'x'\n{GOOD}", "run: limit: expected int, got str 'x'"),
    "option of a wrong type": (
        f"[analysis]\nalpha = 'x'\n{GOOD}",
        "analysis: alpha: expected float, got str 'x'",
    ),
    "out of range": (
        "[[pair]]\nname = 'a'\nbase = 'b'\ntune = {steps = 0}",
        "tune: steps: must be at least 1, got 0",
    ),
    "run out of range": (f"[run]\nlimit = 0\n{GOOD}", "base: --limit: must be at least 1"),
    "a model for all": (f"[run]\nmodel = 'x'\n{GOOD}", "model is each model's own"),
    "no base": ("[[pair]]\nname = 'a'\ntuned = 'b'", "base is missing"),
    "no tuned": ("[[pair]]\nname = 'a'\nbase = 'b'", "expected either tuned, a model, or tune"),
    "both": (f"{GOOD}tune = {{}}", "expected either tuned, a model, or tune"),
    "a name that is no folder": (GOOD.replace('"a"', '"a/b"'), "name: expected letters, digits"),
    "twice": (GOOD + GOOD, "two pairs are called 'a'"),
    "no model": ("[[pair]]\nname='a'\nbase={limit=3}\ntuned='b'", "base: model is missing"),
    "a folder of its own": (
        "[[pair]]\nname='a'\nbase={model='x', out='y'}\ntuned='b'",
        "base: out: the study names the folders",
    ),
    "no such config": (GOOD.replace("default", "gone.toml"), "base: cannot be read"),
    "a number": (GOOD.replace('"default"', "3"), "base: expected a model, a config"),
    "noise floor": (f"noise_floor = 'int8'\n{GOOD}", "noise_floor: expected bfloat16"),
    "no other dtype": (
        f"noise_floor = 'float32'\n[run]\ndtype = 'float32'\n{GOOD}",
        "the base of a is counted in float32 already; give another dtype",
    ),
    "not TOML": ("out = ", "not TOML"),
    "a remote folder": (
        "out = 's3://b/x'\n[[pair]]\nname = 'a'\nbase = 'b'\ntune = {}",
        "tune writes a model folder; give a local out",
    ),
}


@pytest.mark.parametrize("text", [case[0] for case in BAD.values()], ids=BAD)
def test_bad_configs(text: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    message = BAD[request.node.callspec.id][1]
    with pytest.raises(InputError, match=message) as found:
        load_study(written(tmp_path, text))
    assert "\n" not in str(found.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone.toml: cannot be read"):
        load_study(tmp_path / "gone.toml")
