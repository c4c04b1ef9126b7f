"""Which instructions are one observation."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import CATEGORIES, dense_space, draw_sets, planted_prevalence, write_run

from sparcom.clusters import cluster_name, is_unclustered, with_clusters
from sparcom.config import RunConfig
from sparcom.errors import InputError
from sparcom.store import Run


@pytest.mark.parametrize(
    ("origin", "cluster"),
    [
        ("sparcom:CLS/sentiment/kitchen-appliances", "sparcom:CLS/sentiment"),
        ("sparcom:matched/P01", "sparcom:matched/P01"),
        ("sparcom:plain-text/T20", "sparcom:plain-text/T20"),
        ("yizhongw/self-instruct:data/seed.jsonl#1", "yizhongw/self-instruct"),
        ("https://example.org/a/1", "example.org"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_an_origin_names_its_cluster(origin: str, cluster: str) -> None:
    assert cluster_name(origin) == cluster


def test_a_named_cluster_comes_before_the_origin_and_none_is_empty() -> None:
    table = pa.table(
        {"id": ["a", "b", "c"], "origin": ["x:1", "x:2", ""], "cluster": ["t", "", ""]}
    )
    found = with_clusters(table)["cluster"].to_pylist()
    assert found[:2] == ["t", "x"]
    assert [is_unclustered(name) for name in found] == [False, False, True]
    older = with_clusters(table.drop_columns(["cluster"]))["cluster"].to_pylist()
    assert older == ["x", "x", found[2]]


def test_a_run_of_an_older_version_has_clusters_too(tmp_path: Path) -> None:
    codes = np.arange(12) % 6
    members = draw_sets(planted_prevalence(CATEGORIES, 600), codes, np.random.default_rng(0))
    labels = [CATEGORIES[code] for code in codes]
    run = write_run(tmp_path / "run", members, labels, dense_space())
    expected = run.labels["cluster"].to_pylist()
    assert len(set(expected)) > 1
    path = tmp_path / "run" / "corpus.parquet"
    file = pq.ParquetFile(path)
    stamps = {k: v for k, v in file.metadata.metadata.items() if k != b"ARROW:schema"}
    older = file.read().drop_columns(["cluster"]).replace_schema_metadata(stamps)
    pq.write_table(older, path, row_group_size=64, write_page_checksum=True)
    assert Run(tmp_path / "run").labels["cluster"].to_pylist() == expected


def test_a_config_names_the_field_of_the_cluster() -> None:
    taken = RunConfig(cluster="template.id").reading().fields.takes
    assert taken == {"cluster": ("template", "id")}
    with pytest.raises(InputError, match="cluster"):
        RunConfig(cluster="a", map=("cluster=b",))
