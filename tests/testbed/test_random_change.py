"""The random control: as large a change as tuning's, in the same weights, and of no direction."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import save_tiny_llm

from sparcom.errors import InputError
from sparcom.testbed.random_change import main, random_change

FILE = "model.safetensors"


def _tuned(folder: Path, base: Path, scale: float) -> Path:
    """A copy of a model whose FFNs are shifted by `scale` everywhere, as stored."""
    save_tiny_llm(folder)
    weights = load_file(base / FILE)
    for name in weights:
        if ".mlp." in name:
            weights[name] = (weights[name].float() + scale).to(weights[name].dtype)
    save_file(weights, folder / FILE, {"format": "pt"})
    return folder


@pytest.mark.parametrize("scale", [1e-4, 1e-2])  # below the steps of bfloat16, and above
def test_the_same_weights_change_as_much(
    tmp_path: Path, capsys: pytest.CaptureFixture, scale: float
) -> None:
    base = save_tiny_llm(tmp_path / "base")
    tuned = _tuned(tmp_path / "tuned", base, scale)
    given = ["--base", str(base), "--tuned", str(tuned), "--seed", "3"]
    assert main([*given, "--out", str(tmp_path / "random")]) == 0
    assert "weights changed, norm" in capsys.readouterr().out
    before, after, random = (load_file(f / FILE) for f in (base, tuned, tmp_path / "random"))
    changed = {name for name in before if not before[name].equal(random[name])}
    assert changed == {name for name in before if ".mlp." in name}
    for name in changed:
        wanted, found = (w[name].double() - before[name].double() for w in (after, random))
        assert float(found.norm()) == pytest.approx(float(wanted.norm()), rel=0.021)
        cosine = torch.nn.functional.cosine_similarity(wanted.flatten(), found.flatten(), 0)
        assert abs(float(cosine)) < 5 / wanted.numel() ** 0.5
    norms = random_change(str(base), str(tuned), tmp_path / "again", seed=3)
    assert set(norms) == changed
    again = load_file(tmp_path / "again" / FILE)
    assert all(again[name].equal(random[name]) for name in random)
    random_change(str(base), str(tuned), tmp_path / "other", seed=4)
    other = load_file(tmp_path / "other" / FILE)
    assert any(not other[name].equal(random[name]) for name in changed)


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base = save_tiny_llm(tmp_path / "base")
    with pytest.raises(InputError, match="have the same weights"):
        random_change(str(base), str(base), tmp_path / "out")
    other = save_tiny_llm(tmp_path / "wide", intermediate_size=48)
    given = ["--base", str(base), "--tuned", str(other), "--out", str(tmp_path / "out")]
    assert main(given) == 2
    assert "expected a model and its tuned version" in capsys.readouterr().err
