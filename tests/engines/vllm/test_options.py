"""Options that cannot work are refused, and what changes a compiled graph changes its cache key."""

from dataclasses import replace

import pytest

from sparcom.engines.base import EngineOptions
from sparcom.engines.vllm.options import CountingConfig, VllmOptions
from sparcom.errors import InputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "slots: must be at least 1, got 0"),
        ({"batch_tokens": 0}, "batch-tokens: must be at least 1"),
        ({"temperature": -1}, "temperature: must be at least 0"),
        ({"context": 0}, "context: must be at least 1"),
        ({"ablation": True, "count": False}, "ablation: the kernel that counts also ablates"),
        ({"ablation": True, "executor": "external_launcher"}, "use executor mp or ray"),
        ({"executor": "slurm"}, "executor: expected mp, ray, external_launcher, got 'slurm'"),
        ({"dtype": "int3"}, "dtype: expected bfloat16, float16, float32, auto, got 'int3'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        VllmOptions(model="m", **options)


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'tensor_parallel'"):
        VllmOptions.of(EngineOptions("m"), tensor_paralel=2)
    assert VllmOptions.of(EngineOptions("m", slots=3), compile=True).slots == 3


def test_options_beside_the_model_are_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        VllmOptions("m", "float32")


ONE = CountingConfig(threshold=0.0, signal="gate", slots=64, verify=False, kernel="k1")


@pytest.mark.parametrize(
    "change", [{"threshold": 0.5}, {"signal": "product"}, {"kernel": "k2"}, {"ablation": True}]
)
def test_what_changes_the_graph_changes_the_cache_key(change):
    assert replace(ONE, **change).compute_hash() != ONE.compute_hash()


@pytest.mark.parametrize("change", [{"slots": 8}, {"verify": True}])
def test_what_does_not_change_the_graph_leaves_the_cache_key(change):
    assert replace(ONE, **change).compute_hash() == ONE.compute_hash()
