"""Greedy answers by a model that counts: transformers' own `generate`, one prompt at a time.

A prompt alone, without padding, with a KV cache: what is written does not depend on other prompts.
Nothing is counted; what is ablated stays ablated, since the same modules run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.recorder import Recorder
from sparcom.engines.transformers import rotary


def end_tokens(model: Any) -> list[int]:
    """Token ids that end an answer, from the generation config, else the model's config."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    if ends is None:
        ends = model.config.get_text_config().eos_token_id
    return list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends]


@torch.inference_mode()
def write(
    model: Any,
    prompts: Sequence[Prompt],
    recorder: Recorder | None,
    solo_above: int | None,
    before_pass: Callable[[Sequence[tuple[Prompt, int, int]], int], None] | None = None,
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(id, token ids of the answer, at most `prompt.generate`, without the one that ends it).

    model: transformers' model, with an attention that takes a KV cache.
    solo_above: as of `rotary.solo_above`. before_pass: as of `TransformersEngine`.
    """
    ends = end_tokens(model)
    reading, read = prompts[0] if prompts else None, 0

    def placed(rows: int) -> None:
        """Each pass reads one token more; with a KV cache, no others but in the first."""
        nonlocal read
        if before_pass is not None and reading is not None:
            stop = len(reading.token_ids) + read
            before_pass([(reading, stop - rows, rows)], rows)
        read += 1

    with _greedy(model, ends), uncounted(model, recorder, placed):
        for prompt in prompts:
            if solo_above is not None:
                rotary.reset(model)
            reading, read = prompt, 0
            ids = torch.tensor([prompt.token_ids], device=model.device)
            mask = torch.ones_like(ids)
            out = model.generate(ids, attention_mask=mask, max_new_tokens=prompt.generate)
            answer = out[0, ids.shape[1] :].tolist()
            yield prompt.id, tuple(answer[:-1] if answer and answer[-1] in ends else answer)


@contextmanager
def _greedy(model: Any, ends: Sequence[int]) -> Iterator[None]:
    """Within the block nothing of the model's own defaults (sampling, penalties) is left."""
    before = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=list(ends) or None, pad_token_id=ends[0] if ends else 0
    )
    try:
        yield
    finally:
        model.generation_config = before


@contextmanager
def uncounted(
    model: Any, recorder: Recorder | None, placed: Callable[[int], None] | None = None
) -> Iterator[None]:
    """Within the block, every row of every pass is outside what is counted.

    placed: called before each pass with its number of rows; None: nothing is.
    """

    def begin(_: torch.nn.Module, ids: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = ids[0] if ids else named.get("input_ids")
        rows = (named["inputs_embeds"][..., 0] if given is None else given).numel()
        if recorder is not None:
            recorder.begin(torch.full((rows,), -1, dtype=torch.int32))
        if placed is not None:
            placed(rows)

    hook = model.register_forward_pre_hook(begin, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
