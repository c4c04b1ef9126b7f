"""vLLM's engine behind the four calls that the stream makes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparcom.corpus.prompts import Prompt
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.rows import request_note
from sparcom.errors import CountError


class Serving:
    """Requests in, finished ones and their counts out.

    llm: vLLM's `LLMEngine`.
    widths: neurons of each worker, in rank order; () where nothing is counted.
    eos: token ids that end a response.
    """

    def __init__(
        self, llm: Any, options: VllmOptions, widths: Sequence[int], eos: Sequence[int]
    ) -> None:
        self._llm, self._options = llm, options
        self._widths, self._eos = tuple(widths), list(eos)
        self._prompt_tokens: dict[str, int] = {}

    def add(self, key: str, prompt: Prompt, slot: int) -> None:
        """Queue a prompt as request `key`, counting into `slot`."""
        response = self._options.max_new_tokens > 0
        self._prompt_tokens[key] = prompt.n_counted
        note = request_note(slot, prompt.counted, len(prompt.token_ids), response)
        self._llm.add_request(
            key, {"prompt_token_ids": list(prompt.token_ids)}, self._sampling(note)
        )

    def step(self) -> list[tuple[str, int]]:
        """Run one step; (key, T) of the requests that it finished.

        Of n generated tokens n - 1 were read again, and those are the response: the last one is
        the end of the sequence, or one more than was asked for.
        """
        finished = []
        for output in self._llm.step():
            if output.finished:
                tokens = self._prompt_tokens.pop(output.request_id)
                if self._options.max_new_tokens:
                    tokens += len(output.outputs[0].token_ids) - 1
                finished.append((output.request_id, tokens))
        return finished

    def take(
        self, ids: Sequence[str], slots: Sequence[int], tokens: Sequence[int]
    ) -> tuple[np.ndarray, ...]:
        """Counts [n, neurons] of finished slots, one array per worker.

        Raises CountError where a worker's counts are not conserved.
        """
        if not self._widths:
            return ()
        replies = self._llm.collective_rpc(
            "sparcom_take", args=(list(ids), list(slots), list(tokens))
        )
        for rank, reply in enumerate(replies):
            if "error" in reply:
                raise CountError(f"worker {rank}: {reply['error']}")
        return tuple(
            np.frombuffer(reply["neurons"], np.int32).reshape(len(ids), width)
            for reply, width in zip(replies, self._widths, strict=True)
        )

    def abort(self, keys: Sequence[str], slots: Sequence[int]) -> None:
        """End requests early and clear their slots."""
        self._llm.abort_request(list(keys))
        for key in keys:
            self._prompt_tokens.pop(key, None)
        if self._widths:
            self._llm.collective_rpc("sparcom_drop", args=(list(slots),))

    def _sampling(self, note: dict[str, Any]) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        options = self._options
        return SamplingParams(
            max_tokens=options.max_new_tokens + 1,
            temperature=options.temperature,
            seed=options.seed if options.temperature else None,
            stop_token_ids=self._eos if options.max_new_tokens else None,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=note,
        )
