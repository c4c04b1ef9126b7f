"""vLLM's engine behind the five calls that the stream makes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparcom.components import Shard
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import predicted
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.worker.rows import request_note
from sparcom.errors import CountError


class Serving:
    """Requests in, finished ones and their counts out.

    llm: vLLM's `LLMEngine`.
    shards: what each worker holds, in rank order; () where nothing is counted.
    eos: token ids that end an answer.
    recomputed: tokens that the engine read again after preempting their request, so far.
    """

    def __init__(
        self, llm: Any, options: VllmOptions, shards: Sequence[Shard], eos: Sequence[int]
    ) -> None:
        self._llm, self._options = llm, options
        self._eos = list(eos)
        self._shapes = [(len(s.neuron_indices()), len(s.expert_indices())) for s in shards]
        self._prompts: dict[str, Prompt] = {}
        self._losses: dict[str, float] = {}
        self.recomputed = 0

    def add(self, key: str, prompt: Prompt, slot: int, scored: bool = False) -> None:
        """Queue a prompt as request `key`, counting into `slot`; a scored one counts nothing and
        has a loss instead."""
        self._prompts[key] = prompt
        counted, generate = ((), 0) if scored else (prompt.counted, prompt.generate)
        note = request_note(slot, counted, len(prompt.token_ids), generate > 0)
        tokens = {"prompt_token_ids": list(prompt.token_ids)}
        self._llm.add_request(key, tokens, self._sampling(generate, note, scored))

    def step(self) -> list[tuple[str, int]]:
        """Run one step; (key, T) of the requests that it finished.

        Of n written tokens n - 1 were read again, and those are the answer: the last one is the
        end of the sequence, or one more than was asked for.
        """
        finished = []
        for output in self._llm.step():
            if output.finished:
                prompt = self._prompts.pop(output.request_id)
                answer = len(output.outputs[0].token_ids) - 1
                if output.prompt_logprobs is not None:
                    self._losses[output.request_id] = loss_of(prompt, output.prompt_logprobs)
                finished.append((output.request_id, prompt.n_counted + answer))
        return finished

    def take(
        self, ids: Sequence[str], slots: Sequence[int], tokens: Sequence[int]
    ) -> tuple[Counted, ...]:
        """What each worker counted in finished slots.

        Raises CountError where a worker's counts are not conserved.
        """
        if not self._shapes:
            return ()
        replies = self._llm.collective_rpc(
            "sparcom_take", args=(list(ids), list(slots), list(tokens))
        )
        for rank, reply in enumerate(replies):
            if "error" in reply:
                raise CountError(f"worker {rank}: {reply['error']}")
        self.recomputed = replies[0]["recomputed"]
        expected = np.asarray(tokens, np.int64)
        return tuple(
            Counted(
                tuple(ids),
                expected,
                np.frombuffer(reply["neurons"], reply["dtype"])
                .reshape(len(ids), neurons)
                .astype(np.int32),
                np.frombuffer(reply["experts"], np.int32).reshape(len(ids), experts),
            )
            for reply, (neurons, experts) in zip(replies, self._shapes, strict=True)
        )

    def losses(self, keys: Sequence[str], slots: Sequence[int]) -> tuple[float, ...]:
        """`loss_of` each finished scored request; frees their slots."""
        self._drop(slots)
        return tuple(self._losses.pop(key) for key in keys)

    def abort(self, keys: Sequence[str], slots: Sequence[int]) -> None:
        """End requests early and clear their slots."""
        self._llm.abort_request(list(keys))
        for key in keys:
            self._prompts.pop(key, None)
        self._drop(slots)

    def _drop(self, slots: Sequence[int]) -> None:
        if self._shapes:
            self._llm.collective_rpc("sparcom_drop", args=(list(slots),))

    def _sampling(self, generate: int, note: dict[str, Any], scored: bool) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        options = self._options
        return SamplingParams(
            max_tokens=generate + 1,
            temperature=options.temperature,
            seed=options.seed if options.temperature else None,
            stop_token_ids=self._eos if generate else None,
            prompt_logprobs=0 if scored else None,  # 0: those of the prompt's own tokens
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=note,
        )


def loss_of(prompt: Prompt, logprobs: Sequence[Mapping[int, Any] | None]) -> float:
    """Mean negative log-likelihood, in nats per token, of a prompt's counted tokens.

    logprobs: vLLM's, for each position the `Logprob` of its token given those before it. NaN where
    no counted token follows another.
    """
    found = [logprobs[at][prompt.token_ids[at]].logprob for at in predicted(prompt)]
    return -float(np.mean(found)) if found else float("nan")
