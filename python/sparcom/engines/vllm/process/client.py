"""A client of vLLM's `LLMEngine`: requests in, finished ones and their counts out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparcom.components import LocalSite
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.counting.magnitudes import Magnitudes
from sparcom.engines.base import predicted
from sparcom.engines.vllm.model_facts import end_tokens
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process.processes import EngineProcesses
from sparcom.engines.vllm.worker.rows import request_note
from sparcom.errors import CountError


class EngineClient:
    """The calls of vLLM that counting makes; one thread at a time makes them.

    llm: vLLM's `LLMEngine`. processes: what it has started.
    local_sites: what each worker counts, in rank order; () if nothing is counted.
    without_h: names of the sites whose h no worker sees (`CountedActivation.gives_h`).
    guided: names of the routed sites whose routers look at more than the logits (`Bank.guided`).
    count_bytes: memory that the workers' counts take.
    recomputed: tokens that the engine read again after preempting their request, so far.
    cached: tokens that were not read, since an earlier request began with them, so far.
    Every call raises ChildProcessError if the engine dies.
    """

    def __init__(self, llm: Any, processes: EngineProcesses, options: VllmOptions) -> None:
        self._llm, self._processes, self._options = llm, processes, options
        self._end_tokens = end_tokens(options)
        self._prompts: dict[str, Prompt] = {}
        self._losses: dict[str, float] = {}
        self._answers: dict[str, tuple[int, ...]] = {}
        self._written: set[str] = set()
        self.recomputed = self.cached = 0
        replies = self.call_workers("sparcom_sites") if options.count else []
        self.local_sites = [[LocalSite.from_json(s) for s in reply["sites"]] for reply in replies]
        self.without_h = [name for reply in replies for name in reply["without_h"]]
        self.guided = [name for reply in replies for name in reply["guided"]]
        self.count_bytes = sum(reply["bytes"] for reply in replies)
        counted = [[local.as_counted for local in sites] for sites in self.local_sites]
        self._shapes = [
            (sum(site.neurons for site in sites), sum(site.experts for site in sites))
            for sites in counted
        ]

    def call_workers(self, method: str, *args: Any) -> list[Any]:
        """A method of every worker; their replies, in rank order."""
        return self._processes.call(self._llm.collective_rpc, method, None, args)

    def add(
        self, key: str, prompt: Prompt, slot: int, scored: bool = False, written: bool = False
    ) -> None:
        """Queue a prompt as request `key`, counting into `slot`.

        scored: nothing is counted, and it has a loss instead. written: nothing is counted, and it
        has an answer instead, written greedily.
        """
        self._prompts[key] = prompt
        counted, generate = ((), 0) if scored or written else (prompt.counted, prompt.generate)
        note = request_note(slot, counted, len(prompt.token_ids), generate > 0)
        tokens = {"prompt_token_ids": list(prompt.token_ids)}
        if written:
            self._written.add(key)
            sampling = self._greedy(prompt.generate, note)
        else:
            sampling = self._sampling(generate, note, scored)
        self._processes.call(self._llm.add_request, key, tokens, sampling)

    def step(self) -> list[tuple[str, int]]:
        """Run one step; (key, T) of the requests that it finished.

        Of n written tokens n - 1 were read again, and those are the answer: the last one is the
        end of the sequence, or one more than was asked for.
        """
        finished = []
        for output in self._processes.call(self._llm.step):
            if output.finished:
                prompt = self._prompts.pop(output.request_id)
                written = tuple(output.outputs[0].token_ids)
                if output.request_id in self._written:
                    ends = written[-1:] and written[-1] in self._end_tokens
                    self._answers[output.request_id] = written[:-1] if ends else written
                answer = len(written) - 1
                if output.prompt_logprobs is not None:
                    self._losses[output.request_id] = loss_of(prompt, output.prompt_logprobs)
                finished.append((output.request_id, prompt.n_counted + answer))
        return finished

    def take(
        self, ids: Sequence[str], slots: Sequence[int], tokens: Sequence[int]
    ) -> tuple[Counted, ...]:
        """What each worker counted in finished slots; tokens: T of each.

        Raises CountError if a worker's counts are not conserved.
        """
        if not self._shapes:
            return ()
        replies = self.call_workers("sparcom_take", list(ids), list(slots), list(tokens))
        for rank, reply in enumerate(replies):
            if "error" in reply:
                raise CountError(f"worker {rank}: {reply['error']}")
        self.recomputed, self.cached = replies[0]["recomputed"], replies[0]["cached"]
        expected = np.asarray(tokens, np.int64)
        return tuple(
            Counted(
                tuple(ids),
                expected,
                np.frombuffer(reply["neurons"], reply["dtype"])
                .reshape(len(ids), neurons)
                .astype(np.int32),
                np.frombuffer(reply["experts"], np.int32).reshape(len(ids), experts),
                np.frombuffer(reply["signs"], reply["dtype"])
                .reshape(2, len(ids), neurons)
                .astype(np.int32)
                if reply["signs"]
                else None,
                Magnitudes.from_bytes(reply["magnitudes"], len(ids), neurons, experts)
                if reply["magnitudes"]
                else None,
            )
            for reply, (neurons, experts) in zip(replies, self._shapes, strict=True)
        )

    def losses(self, keys: Sequence[str], slots: Sequence[int]) -> tuple[float, ...]:
        """`loss_of` each finished scored request; frees their slots."""
        self._drop(slots)
        return tuple(self._losses.pop(key) for key in keys)

    def answers(self, keys: Sequence[str], slots: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Token ids that finished written requests answered, without the end token; frees their
        slots."""
        self._drop(slots)
        self._written.difference_update(keys)
        return tuple(self._answers.pop(key) for key in keys)

    def abort(self, keys: Sequence[str], slots: Sequence[int]) -> None:
        """End requests early and clear their slots."""
        self._processes.call(self._llm.abort_request, list(keys))
        for key in keys:
            self._prompts.pop(key, None)
            self._written.discard(key)
        self._drop(slots)

    def _drop(self, slots: Sequence[int]) -> None:
        if self._shapes:
            self.call_workers("sparcom_drop", list(slots))

    def _sampling(self, generate: int, note: dict[str, Any], scored: bool) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        options = self._options
        return SamplingParams(
            max_tokens=generate + 1,
            temperature=options.temperature,
            seed=options.seed if options.temperature else None,
            stop_token_ids=self._end_tokens if generate else None,
            prompt_logprobs=0 if scored else None,  # 0: those of the prompt's own tokens
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=note,
        )

    def _greedy(self, tokens: int, note: dict[str, Any]) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=tokens, temperature=0.0, stop_token_ids=self._end_tokens, detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY, extra_args=note,
        )  # fmt: skip


def loss_of(prompt: Prompt, logprobs: Sequence[Any]) -> float:
    """Mean negative log-likelihood, in nats per token, of a prompt's counted tokens.

    logprobs: vLLM's, for each position token id -> `Logprob` given the tokens before it. NaN if no
    counted token follows another.
    """
    found = [logprobs[at][prompt.token_ids[at]].logprob for at in predicted(prompt)]
    return -float(np.mean(found)) if found else float("nan")
