"""lm-evaluation-harness on a loaded model, whole, ablated or scaled.

The harness' own class for transformers (`HFLM`) makes the requests, pads the batches and reads the
answers. Only the passes are those of the model that counts, so that what is ablated stays so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sparcom.api.model import Model
from sparcom.errors import InputError


def lm_eval(model: Model, **options: Any) -> Any:
    """A model as lm-evaluation-harness takes it: an `lm_eval.models.huggingface.HFLM`.

    What is ablated when the harness evaluates it is what `Model.ablated` or `Model.scaled` say.

    model: on the transformers engine.
    options: of HFLM, but for those that load a model: batch_size, max_length, add_bos_token,
        softmax_dtype, ...
    Raises InputError without lm-evaluation-harness (`pip install 'sparcom[lm-eval]'`), and for a
    model on vLLM.

    >>> from lm_eval import simple_evaluate
    >>> with model.ablated("list.csv"):
    ...     found = simple_evaluate(sparcom.lm_eval(model, batch_size=8), tasks=["arc_easy"])
    >>> found["results"]["arc_easy"]
    """
    of_harness = _class_of_harness()
    if model.config.engine != "transformers":
        raise InputError(
            'lm_eval: this needs Model(..., engine="transformers"); on vLLM serve the model with '
            "`sparcom serve`, and evaluate it with the harness' local-completions"
        )
    return of_harness(model, **options)


@lru_cache(maxsize=1)
def _class_of_harness() -> Any:
    """The harness' class with our passes. Made when it is asked for: the harness is optional."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise InputError(
            f"lm_eval: lm-evaluation-harness does not load ({error}); "
            "pip install 'sparcom[lm-eval]'"
        ) from error

    class CountedLM(HFLM):  # type: ignore[misc]  # the optional package may not be there to check
        """HFLM whose passes are those of a `Model`."""

        def __init__(self, model: Model, **options: Any) -> None:
            self._of = model
            engine: Any = model.engine
            with model.exclusive():
                super().__init__(
                    pretrained=engine.model, tokenizer=engine.options.model,
                    trust_remote_code=engine.options.trust_remote_code, **options,
                )  # fmt: skip

        def _model_call(self, *given: Any, **named: Any) -> Any:
            with _padded(self._of):
                return super()._model_call(*given, **named)

        def _model_generate(self, *given: Any, **named: Any) -> Any:
            with _padded(self._of):
                return super()._model_generate(*given, **named)

    return CountedLM


@contextmanager
def _padded(model: Model) -> Iterator[None]:
    """Within the block, transformers' model inside takes padded batches, from this thread alone."""
    engine: Any = model.engine
    with model.exclusive(), engine.batches():
        yield
