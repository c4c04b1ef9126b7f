"""A study of two tiny models from its config to its page: stopped, resumed, and with a failure."""

import itertools
import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from counted_here import counted_here
from safetensors.torch import load_file
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.cli.main import main
from sparcom.errors import InputError, SparcomError
from sparcom.report import figures
from sparcom.store import Run
from sparcom.study.config import load_study
from sparcom.study.run import NOTES, run_study, time_left
from sparcom.study.steps import steps_of

PAIRS = ("dense", "mixed")
STEPS = {
    "tune": 2, "count": 6, "compare": 2, "ablate": 4, "report": 4,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Counts without Ray, and pages without drawn figures: both take seconds."""
    with pytest.MonkeyPatch.context() as patch, counted_here():
        patch.setattr(figures, "_save", lambda *_, **__: b"<svg></svg>")
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    save_tiny_llm(folder / "llama", num_hidden_layers=2)
    save_tiny_llm(folder / "moe", "qwen2_moe", num_hidden_layers=2)
    rows = [row | {"reference": "the sea is blue"} for row in records(24)]
    write_corpus(folder / "corpus.jsonl", rows)
    (folder / "study.toml").write_text(config(folder), "utf-8")
    return folder


def config(folder: Path, other: str = "moe") -> str:
    return f"""
out = "{folder}/out"
noise_floor = "float32"
[run]
corpus = "{folder}/corpus.jsonl"
part_size = 12
cpus = 1
batch_tokens = 64
rule = "top:0.1"
expert_rule = "top:0.3"
examples = 0
[analysis]
permutations = 50
bootstraps = 50
small_draws = 10
high = 0.4
[ablate]
targets = ["top:5"]
random_sets = 2
limit = 2
threads = 1
[[pair]]
name = "dense"
base = "{folder}/llama"
tune = {{ categories = ["MATH"], steps = 3, batch = 2, rate = 1e-2 }}
[[pair]]
name = "mixed"
base = "{folder}/{other}"
tune = {{ steps = 3, batch = 2, rate = 1e-2 }}
"""


def written_at(folder: Path) -> dict[str, int]:
    """When each file that costs something was written."""
    files = [*folder.glob("models/*/*"), *folder.glob("runs/*/*.parquet")]
    files += [*folder.glob("runs/*/*/*.parquet"), *folder.glob("runs/*/run.json")]
    return {str(file.relative_to(folder)): os.stat(file).st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def studied(work: Path) -> Path:
    """The finished study, which was stopped in the middle of its second pair."""
    from sparcom.analysis.tuning import compare as module

    study = load_study(work / "study.toml")
    calls = itertools.count()
    whole = module.compare

    def stopped(*given: object, **more: object) -> object:
        if next(calls):
            raise KeyboardInterrupt
        return whole(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "compare", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_study(study)
    out = work / "out"
    before = written_at(out)
    assert not (out / "study.html").exists()
    summary = run_study(study)
    assert summary.problems == {}
    assert summary.page == f"{out}/study.html"
    # All of the first pair and what the second had done, to the nanosecond.
    assert before.items() <= written_at(out).items()
    left = ["mixed/compare", "mixed/ablate base", "mixed/ablate tuned", "mixed/report base",
            "mixed/report tuned"]  # fmt: skip
    assert sorted(summary.done) == sorted(left)
    assert len(summary.there) == sum(STEPS.values()) - len(left)
    return out


def test_a_finished_study_has_nothing_to_do(
    studied: Path, work: Path, capsys: pytest.CaptureFixture
) -> None:
    before = written_at(studied)
    assert main(["study", str(work / "study.toml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["done"] == []
    assert len(found["there"]) == sum(STEPS.values())
    assert written_at(studied) == before


@pytest.mark.slow
def test_only_what_changed_is_done_again(studied: Path, work: Path) -> None:
    changed = work / "changed.toml"
    changed.write_text(config(work).replace("high = 0.4", "high = 0.45"), "utf-8")
    before = written_at(studied)
    summary = run_study(load_study(changed))
    kinds = {name.partition("/")[2].partition(" ")[0] for name in summary.done}
    assert kinds == {"compare", "report"}
    same = [name for name in before if name.startswith("models") or "/counts/" in name]
    after = written_at(studied)
    assert same
    assert all(before[name] == after[name] for name in same)
    run_study(load_study(work / "study.toml"))


def test_other_settings_of_tuning_are_refused(studied: Path, work: Path) -> None:
    changed = work / "tuned.toml"
    changed.write_text(
        config(work).replace("steps = 3, batch = 2, rate = 1e-2 }", "steps = 4 }", 1)
    )
    before = written_at(studied)
    summary = run_study(load_study(changed))
    assert "was made with other settings" in summary.problems["dense/tune"]
    assert summary.problems["dense/count tuned"] == "left out: it needs dense/tune"
    assert "mixed/compare" in summary.there
    assert written_at(studied) == before
    run_study(load_study(work / "study.toml"))


def test_tuned_models_are_tuned(studied: Path, work: Path) -> None:
    for pair, base in (("dense", "llama"), ("mixed", "moe")):
        one, other = (
            load_file(folder / "model.safetensors")
            for folder in (work / base, studied / f"models/{pair}-tuned")
        )
        changed = {name for name in one if not one[name].equal(other[name])}
        assert changed
        assert all(".mlp." in name for name in changed)


class Page(HTMLParser):
    """The tables and figures of a page: rows by the heading that they stand under."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.heading, self.tag = "", ""
        self.rows: dict[str, list[list[str]]] = {}
        self.figures: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag = tag
        if tag == "h2":
            self.heading = ""
        elif tag == "tr":
            self.rows.setdefault(self.heading, []).append([])
        elif tag in ("td", "th"):
            self.rows[self.heading][-1].append("")
        elif tag == "figure":
            self.figures.append((self.heading, str(dict(attrs)["id"])))
        elif tag == "a":
            self.links.append(str(dict(attrs)["href"]))

    def handle_data(self, data: str) -> None:
        if self.tag == "h2":
            self.heading += data.strip()
        elif self.tag in ("td", "th") and self.rows.get(self.heading):
            self.rows[self.heading][-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.tag = ""

    def figures_of(self, heading: str, *key: str) -> dict[str, str]:
        """The row that begins with some cells, by the head of its table."""
        name = next(name for name in self.rows if name.startswith(heading))
        head: list[str] = []
        for row in self.rows[name]:
            if row[: len(key)] == list(key):
                return dict(zip(head, row, strict=True))
            if row[0] in ("model", "pair"):
                head = row
        raise KeyError(key)


@pytest.fixture
def page(studied: Path) -> Page:
    return Page((studied / "study.html").read_text("utf-8"))


def bits_of(run: Run, family: str) -> np.ndarray:
    """[n, components] bool of the stored sets."""
    packed = getattr(run.sets, family)
    count = run.space.neurons if family == "neurons" else run.space.experts
    return np.unpackbits(packed, axis=1, bitorder="little")[:, :count].astype(bool)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_the_pages_figures_stand_in_the_papers_order(page: Page) -> None:
    assert page.figures == [
        ("Figure 3. Overlap of ISNs between categories", "study-neurons-overlap"),
        ("Figure 4. ISNs over depth", "study-neurons-layers"),
        ("Figure 5. ISEs: overlap between categories, and depth", "study-experts-overlap"),
        ("Figure 5. ISEs: overlap between categories, and depth", "study-experts-layers"),
        ("Figure 6. What tuning changed", "study-alteration"),
    ]


def test_the_page_links_to_the_page_of_each_run(page: Page, studied: Path) -> None:
    assert page.links == [f"runs/{p}-{s}/report.html" for p in PAIRS for s in ("tuned", "base")]
    assert all((studied / link).is_file() for link in page.links)


@pytest.mark.parametrize(
    ("heading", "pair", "family"),
    [("Figure 3", "dense", "neurons"), ("Figure 3", "mixed", "neurons"),
     ("Figure 5", "mixed", "experts")],
)  # fmt: skip
@pytest.mark.parametrize("side", ["base", "tuned"])
def test_overlap_is_that_of_the_stored_sets(
    page: Page, studied: Path, heading: str, pair: str, family: str, side: str
) -> None:
    run = Run(studied / f"runs/{pair}-{side}")
    bits, categories = bits_of(run, family), run.labels["category"].to_pylist()
    same, different = [], []
    for a, b in itertools.combinations(range(len(bits)), 2):
        if bits[a].any() and bits[b].any():
            into = same if categories[a] == categories[b] else different
            into.append(jaccard(bits[a], bits[b]))
    row = page.figures_of(heading, f"{pair}, {side}")
    assert row["same type"] == f"{np.mean(same):.3f}"
    assert row["different type"] == f"{np.mean(different):.3f}"


@pytest.mark.parametrize("pair", PAIRS)
def test_general_and_unique_neurons_are_those_of_the_stored_sets(
    page: Page, studied: Path, pair: str
) -> None:
    run = Run(studied / f"runs/{pair}-tuned")
    bits, categories = bits_of(run, "neurons"), np.array(run.labels["category"].to_pylist())
    q = {name: bits[categories == name].mean(0) for name in run.categories}
    row = page.figures_of("General, unique and specific neurons", f"{pair}, tuned")
    general = np.all([share >= 0.4 for share in q.values()], axis=0)
    assert row["general"] == f"{general.sum():,}"
    for name, share in q.items():
        rest = np.max([other for key, other in q.items() if key != name], axis=0)
        assert row[f"unique: {name}"] == f"{((share >= 0.4) & (rest <= 0.1)).sum():,}"


@pytest.mark.parametrize(("pair", "family", "named"), [
    ("dense", "neurons", "ISNs"), ("mixed", "neurons", "ISNs"), ("mixed", "experts", "ISEs"),
])  # fmt: skip
def test_alteration_is_that_of_the_stored_sets(
    page: Page, studied: Path, pair: str, family: str, named: str
) -> None:
    base, tuned, other = (
        Run(studied / f"runs/{pair}-{side}") for side in ("base", "tuned", "base-float32")
    )
    assert list(base.sets.ids) == list(tuned.sets.ids) == list(other.sets.ids)
    sets = [bits_of(run, family) for run in (base, tuned, other)]
    categories = np.array(base.labels["category"].to_pylist())
    moved = np.array([jaccard(*both) for both in zip(sets[0], sets[1], strict=True)])
    floor = np.array([jaccard(*both) for both in zip(sets[0], sets[2], strict=True)])
    for name in (*base.categories, "all"):
        of = (categories == name) | (name == "all")
        row = page.figures_of("Figure 6", f"{pair}: {named}", name)
        assert row["overlap"] == f"{moved[of].mean():.3f}"
        assert row["noise floor"] == f"{floor[of].mean():.3f}"


def test_ablation_says_what_two_random_sets_bear(page: Page) -> None:
    html = page.rows["Ablation: loss on reference answers"]
    verdicts = {row[-1] for row in html[1:]}
    assert verdicts <= {"undetermined", "no fair comparison"}
    assert verdicts


def test_figures_lie_beside_the_page(studied: Path, page: Page) -> None:
    for _, name in page.figures:
        for ending in ("png", "svg", "pdf"):
            assert (studied / f"figures/{name}.{ending}").is_file()


def test_a_failed_model_does_not_stop_the_others(work: Path, capsys: pytest.CaptureFixture) -> None:
    broken = work / "broken.toml"
    text = config(work, other="nowhere").replace('noise_floor = "float32"\n', "")
    text = re.sub(r"\[ablate\].*?\[\[pair", "[[pair", text, count=1, flags=re.DOTALL)
    broken.write_text(text.replace(f"{work}/out", f"{work}/broken"), "utf-8")
    assert main(["study", str(broken)]) == 1
    out, err = capsys.readouterr()
    assert "not done: mixed/tune: " in out
    assert "no such model folder" in out
    assert "not done: mixed/compare: left out: it needs mixed/count base" in out
    assert out.splitlines()[-1] == f"study: {work}/broken/study.html"
    said = re.findall(r"^ *[\d.]+ s  \[(\d+/\d+)\] (\S.*?)(?: \((.*)\))?$", err, re.MULTILINE)
    assert said[:3] == [("1/12", "dense/tune", ""), ("2/12", "dense/count base", ""),
                        ("3/12", "dense/count tuned", "")]  # fmt: skip
    assert said[-1] == ("8/12", "mixed/count base", "less than a minute left")
    html = (work / "broken/study.html").read_text("utf-8")
    assert "mixed/tune: model" in html
    assert Page(html).figures_of("Figure 6", "dense: ISNs", "all")["noise floor"] == "-"
    assert (work / "broken/runs/dense-tuned/report.html").is_file()


def test_an_error_that_is_not_ours_is_named_and_logged(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("sparcom.study.steps.fine_tune", breaks)
    study = work / "defect.toml"
    study.write_text(config(work).replace(f"{work}/out", f"{work}/defect"), "utf-8")
    monkeypatch.setattr("sparcom.pipeline.run.count", breaks)
    summary = run_study(load_study(study))
    assert summary.problems["dense/tune"] == "ZeroDivisionError: by zero"
    assert summary.page is None
    assert "Traceback" in capsys.readouterr().err


def test_something_else_lies_there(work: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"holds thesis.tex and no study.json, so it is no study"):
        run_study(load_study(work / "study.toml", out=str(tmp_path)))


def test_damaged_notes(work: Path, tmp_path: Path) -> None:
    (tmp_path / NOTES).write_text('{"schema_version": 1, "steps": {"a": 3}}')
    with pytest.raises(SparcomError, match=r"study.json: steps.a: 3 is not of type 'object'"):
        run_study(load_study(work / "study.toml", out=str(tmp_path)))


def test_steps_come_after_what_they_need(work: Path) -> None:
    steps = steps_of(load_study(work / "study.toml"))
    assert {kind: sum(step.kind == kind for step in steps) for kind in STEPS} == STEPS
    seen: set[str] = set()
    for step in steps:
        assert {*step.needs, *step.shows} <= seen, step.name
        seen.add(step.name)


def test_tiny_moe_is_made_once_for_all_pairs(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    pair = '[[pair]]\nname = "{}"\nbase = "tiny-moe"\ntune = {{}}\n'
    path.write_text(pair.format("a") + pair.format("b"))
    steps = steps_of(load_study(path))
    assert [step.name for step in steps if step.kind == "make"] == ["make/tiny-moe"]
    assert all("make/tiny-moe" in step.needs for step in steps if step.kind == "tune")


def test_the_time_left_is_that_of_steps_of_the_same_kind() -> None:
    taken = {"count": [10.0, 20.0, 90.0], "compare": [4.0]}
    assert time_left(["count", "compare", "count"], taken) == 44.0
    assert time_left([], taken) == 0.0
    assert time_left(["count", "ablate"], taken) is None


def test_a_key_changes_with_settings_and_with_what_it_is_made_from(work: Path) -> None:
    steps = {step.name: step for step in steps_of(load_study(work / "study.toml"))}
    compare = steps["dense/compare"]
    made = dict.fromkeys(compare.needs, "x")
    assert compare.key(made) == compare.key(dict(made))
    assert len({compare.key(made | {name: "y"}) for name in made} | {compare.key(made)}) == 4
    report, run = steps["mixed/report base"], {"mixed/count base": "x"}
    assert report.key(run) != report.key(run | {"mixed/ablate base": "x"})
    assert report.key(run) != steps["mixed/ablate base"].key(run)


@pytest.mark.slow
def test_a_comparison_that_fails_leaves_the_runs_on_the_page(
    work: Path, studied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise SparcomError("no comparison")

    monkeypatch.setattr("sparcom.analysis.tuning.compare.compare", fails)
    changed = work / "uncompared.toml"
    changed.write_text(config(work).replace("high = 0.4", "high = 0.41"), "utf-8")
    summary = run_study(load_study(changed))
    assert dict(summary.problems) == {f"{pair}/compare": "no comparison" for pair in PAIRS}
    assert {f"{pair}/report tuned" for pair in PAIRS} <= set(summary.done)
    html = (studied / "study.html").read_text("utf-8")
    assert "dense/compare: no comparison" in html
    assert Page(html).figures_of("Figure 3", "dense, tuned")
    monkeypatch.undo()
    assert run_study(load_study(work / "study.toml")).problems == {}
