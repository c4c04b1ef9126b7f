"""A run directory on a real S3-compatible server (moto's), through pyarrow's own S3 client."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_helpers import is_complete
from pyarrow import fs
from store_helpers import stored_table
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.config import RunConfig
from sparcom.errors import InputError
from sparcom.pipeline.plan import prepare
from sparcom.pipeline.ray.session import ray_session
from sparcom.pipeline.run import count
from sparcom.store import Run, RunLock, RunStore
from sparcom.store.files import Files


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an empty bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=log, stderr=log,
    )  # fmt: skip
    keys = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_EC2_METADATA_DISABLED": "1",
    }
    before = dict(os.environ)
    os.environ.update(keys)
    try:
        query = f"?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
        uri = f"s3://runs{query}&allow_bucket_creation=true&allow_bucket_deletion=true"
        for _ in range(100):
            try:
                fs.FileSystem.from_uri(uri)[0].create_dir("runs")
                break
            except OSError:
                assert server.poll() is None, "moto_server ended"
                time.sleep(0.2)
        yield f"s3://runs/%s{query}"
    finally:
        server.terminate()
        server.wait(20)
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_tiny_llm(folder / "model")
    write_corpus(folder / "corpus.jsonl", records(20))
    return folder


def config_of(work: Path, out: str, **changes: object) -> RunConfig:
    values = {
        "model": str(work / "model"), "corpus": str(work / "corpus.jsonl"), "out": out,
        "cpus": 1, "part_size": 4, "batch_tokens": 64, "slots": 4,
    }  # fmt: skip
    return RunConfig(**{**values, **changes})


def write_half(files: Files, name: str) -> None:
    with files.writing(name) as file:
        file.write(b"half")
        raise RuntimeError


def test_files_come_and_go(bucket: str) -> None:
    files = Files(bucket % "files")
    assert files.names("sets") == []
    files.write_bytes("sets/a", b"one")
    files.write_bytes("sets/a", b"two")
    assert (files.names("sets"), files.read_bytes("sets/a")) == (["a"], b"two")
    assert files.modified("sets/a") is not None
    with pytest.raises(RuntimeError):
        write_half(files, "sets/b")
    assert files.names("sets") == ["a"]
    files.delete_folder("sets")
    assert files.names("sets") == []


def test_the_lock_holds_on_an_object_store(bucket: str) -> None:
    with RunLock(Files(bucket % "locked")) as lock:
        lock.check()
        with pytest.raises(InputError, match="another driver"), RunLock(Files(bucket % "locked")):
            pass
    assert Files(bucket % "locked").names("lock") == []


def test_a_run_on_an_object_store_is_that_of_a_disk(bucket, work, tmp_path) -> None:
    ours, local = config_of(work, bucket % "run"), config_of(work, str(tmp_path / "run"))
    with ray_session(ours):
        count(local)
        count(ours)
        stored = RunStore(ours.out)
        stored.files.delete("sets/part-00002.parquet")
        assert prepare(ours, resume=True).todo == [2]
        assert is_complete(count(ours, resume=True))
        with pytest.raises(InputError, match="exists already"):
            count(ours)
        count(ours, overwrite=True)
    disk = RunStore(local.out)
    for name in ("counts", "sets", "profiles"):
        assert stored.files.names(name) == disk.files.names(name)
        for file in disk.files.names(name):
            path = f"{name}/{file}"
            assert stored_table(stored, path).equals(stored_table(disk, path))
    assert Run(ours.out).manifest["status"] == "complete"
    assert stored.files.names("lock") == []


@pytest.mark.parametrize(
    "uri", ["s3://AKIA:wJalr@runs/x", "s3://runs/x?access_key=AKIA&secret_key=wJalr"]
)
def test_credentials_in_a_location_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(InputError, match="credentials do not belong into a location") as raised:
        Files(uri)
    assert "wJalr" not in str(raised.value)
    assert "AKIA" not in str(raised.value)
