"""What can be seen of a run from outside: metrics, names of actors, a pool that grows."""

import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from pipeline_helpers import lay_out, results_of, slow_config, wait_for, when
from tiny_runs import POISON, records, save_tiny_llm, write_corpus

from sparcom.pipeline.actor import CountActor
from sparcom.pipeline.plan import prepare
from sparcom.pipeline.ray.session import ray_session
from sparcom.pipeline.run import count


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """A local Ray with room for two actors."""
    with ray_session(slow_config(Path("/none"), Path("/none/run"), actors=2)):
        yield


def metrics_of(run: str) -> dict[str, float]:
    """What Ray exports of a run: sums over the actors."""
    port = ray.nodes()[0]["MetricsExportPort"]
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    found: dict[str, float] = {}
    for line in page.splitlines():
        match = re.fullmatch(r"ray_(sparcom_\w+?)(?:_total)?\{(.*)\} (\S+)", line)
        if match and f'run="{run}"' in match[2]:
            found[match[1]] = float(match[3])
    return found


@pytest.mark.slow  # Ray exports metrics every ten seconds
def test_an_actor_exports_what_it_has_counted(tmp_path: Path, ray_local: None) -> None:
    rows = records(4)
    rows[1]["instruction"] += POISON
    save_tiny_llm(tmp_path / "model")
    write_corpus(tmp_path / "corpus.jsonl", rows)
    plan = prepare(slow_config(tmp_path, tmp_path / "run"))
    actor = ray.remote(num_cpus=1)(CountActor).remote(plan.work)
    result = ray.get(actor.count.remote(0))
    assert (result.instructions, result.failed) == (3, 1)
    (prompt,) = (p for p in plan.store.corpus.prompts(0)[0] if p.id == rows[1]["id"])
    counted = plan.manifest["corpus"]["counted_tokens"] - prompt.n_counted
    expected = {
        "sparcom_tokens_counted": counted,
        "sparcom_instructions_counted": 3.0,
        "sparcom_instructions_failed": 1.0,
        "sparcom_instructions_under_way": 0.0,
    }
    end = time.monotonic() + 120
    while (found := metrics_of(plan.work.run_id)) != expected and time.monotonic() < end:
        time.sleep(1)
    assert found == expected
    ray.kill(actor)


@pytest.mark.slow
def test_a_pool_grows_where_there_is_room_and_its_actors_have_names(
    tmp_path: Path, ray_local: None
) -> None:
    work, run = lay_out(tmp_path), tmp_path / "run"
    write_corpus(work / "corpus.jsonl", records(400))  # long enough for an actor to start
    count(slow_config(work, tmp_path / "one"))
    names: set[str] = set()

    def two_actors() -> bool:
        names.update(n for n in ray.util.list_named_actors() if n.startswith("sparcom-"))
        return len(names) == 2

    with when(two_actors, lambda: True):
        count(slow_config(work, run, actors=1, max_actors=2))
    wait_for(lambda: names, 1)
    run_id = prepare(slow_config(work, run), resume=True).work.run_id
    assert len(names) >= 2
    found = [re.fullmatch(rf"sparcom-{run_id}-(\w+)-\d+", name) for name in names]
    assert len({match[1] for match in found}) == 1  # of one pool, each with a number of its own
    assert results_of(run) == results_of(tmp_path / "one")
