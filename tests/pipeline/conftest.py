"""A tiny model with a corpus, and a run of it, for each file of tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run_files import ROWS, config_of
from tiny_runs import save_tiny_llm, write_corpus

from sparcom.config import RunConfig
from sparcom.pipeline.ray.session import ray_session
from sparcom.pipeline.run import count


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a corpus of 20 instructions."""
    folder = tmp_path_factory.mktemp("work")
    save_tiny_llm(folder / "model")
    write_corpus(folder / "corpus.jsonl", ROWS)
    return folder


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """One local Ray with room for two actors, for all tests of this file."""
    with ray_session(RunConfig(actors=2, cpus=1)):
        yield


@pytest.fixture(scope="module")
def whole(work: Path, ray_local: None) -> Path:
    """A run on one actor of Ray."""
    summary = count(config_of(work, work / "whole"))
    assert (summary.instructions, summary.failed) == (20, 0)
    return work / "whole"
