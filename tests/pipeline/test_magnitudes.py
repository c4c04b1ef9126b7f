"""A run with --magnitudes: its profile holds the sums of what the engine returns, cell by cell."""

from pathlib import Path

import numpy as np
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.config import RunConfig
from sparcom.counting.magnitudes import EXPERTS, NEURONS
from sparcom.engines.load import load_engine
from sparcom.errors import InputError
from sparcom.exporting import export
from sparcom.pipeline.actor import CountActor
from sparcom.pipeline.identify import identify
from sparcom.pipeline.plan import prepare
from sparcom.store import Run, Span
from sparcom.store.profiles.profile_part import MAGNITUDES


@pytest.fixture(scope="module", params=["llama", "qwen2_moe"])
def counted(request, tmp_path_factory) -> tuple[Run, dict[str, np.ndarray]]:
    """(a run, name -> [instructions, components] magnitudes of the engine, in the run's order)."""
    work = tmp_path_factory.mktemp("work")
    save_tiny_llm(work / "model", request.param)
    write_corpus(work / "corpus.jsonl", records(14))
    config = RunConfig(
        model=str(work / "model"), corpus=str(work / "corpus.jsonl"), out=str(work / "run"),
        cpus=1, part_size=3, batch_tokens=64, slots=4, magnitudes=True,
    )  # fmt: skip
    plan = prepare(config)
    actor = CountActor(plan.work)
    for part in plan.todo:
        actor.run(part)
    plan.store.profiles.merge(Span(1, 4))
    plan.store.profiles.merge(Span(0, plan.parts))
    plan.store.write_manifest({**plan.store.manifest(), "status": "complete"})
    run, found = Run(work / "run"), {}
    engine = load_engine(config.engine, plan.work.options, 0)
    prompts = [p for part in range(plan.parts) for p in run.store.corpus.prompts(part)[0]]
    for one in engine.count(prompts):
        for row, name in enumerate(one.ids):
            found[name] = {n: getattr(one.magnitudes, n)[row] for n in (*NEURONS, *EXPERTS)}
    return run, {n: np.stack([found[i][n] for i in run.sets.ids]) for n in (*NEURONS, *EXPERTS)}


def test_the_profile_holds_the_sums_of_each_group(counted) -> None:
    run, magnitudes = counted
    columns = [c for c, n in MAGNITUDES.items() if magnitudes[n].shape[1]]
    cells, sums = run.store.profiles.read(("category",), columns)
    labels = np.array(run.labels["category"].to_pylist())
    for row, name in enumerate(cells["category"].to_pylist()):
        for column in columns:
            of = magnitudes[MAGNITUDES[column]][labels == name]
            expected = of.max(0) if column == "h_largest" else of.sum(0)
            np.testing.assert_allclose(sums[column][row], expected, rtol=1e-12, atol=1e-12)


def test_the_scores_of_neurons_and_experts(counted, tmp_path: Path) -> None:
    run, magnitudes = counted
    table = run.neuron_magnitudes("category").to_pandas()
    labels = np.array(run.labels["category"].to_pylist())
    name = table["category"][0]
    first = table[table["category"] == name]
    of, tokens = labels == name, run.sets.tokens[labels == name].sum()
    reached = first["rows"].to_numpy()
    assert (reached[first["kind"] != "routed"] == tokens).all()
    some = reached > 0
    np.testing.assert_allclose(
        first["mean_h"][some], magnitudes["sums"][of].sum(0)[some] / reached[some], rtol=1e-9
    )
    np.testing.assert_allclose(first["max_h"][some], magnitudes["largest"][of].max(0)[some])
    assert first["mean_abs_h"][~some].isna().all()
    if not run.space.experts:
        with pytest.raises(InputError, match="no routed experts"):
            run.expert_scores()
        return
    path = tmp_path / "scores.csv"
    export(run, "expert-scores", path, category=name)
    scores = pcsv.read_csv(path).to_pandas()
    routed = np.stack([run.expert_frequencies(i) for i in run.sets.ids]) * run.sets.tokens[:, None]
    r = np.rint(routed[of].sum(0))
    assert scores["rows"].tolist() == r.tolist()
    used = r > 0
    sums = {n: magnitudes[n][of].sum(0) for n in EXPERTS}
    for column, numerator in (
        ("mean_weight", "weights"), ("man", "norms"), ("msan", "squares"), ("reap", "products"),
    ):  # fmt: skip
        np.testing.assert_allclose(scores[column][used], (sums[numerator] / r)[used], rtol=1e-9)
    np.testing.assert_allclose(scores["ean"], sums["norms"], rtol=1e-9)
    export(run, "magnitudes", tmp_path / "m.parquet")
    assert pq.read_table(tmp_path / "m.parquet").num_rows == len(table)


def test_sets_of_a_run_with_magnitudes_are_not_selected_again(counted) -> None:
    with pytest.raises(InputError, match="holds magnitudes, .* count again with the other rule"):
        identify(counted[0].store.location, rule="top:0.2")
