"""A worker that serves: nothing is counted, and chosen neurons are scaled in every pass."""

from typing import Any

import numpy as np

from sparcom.components import ComponentSpace, Shard
from sparcom.counting.recorder import Recorder
from sparcom.engines.vllm.options import ServingConfig
from sparcom.engines.vllm.process.faults import note_fault
from sparcom.engines.vllm.worker.ablation import AblationBuffers
from sparcom.engines.vllm.worker.counting_op import StepCounter, use_counter
from sparcom.engines.vllm.worker.moe import bind_experts, counted_experts
from sparcom.engines.vllm.worker.sites import instrument
from sparcom.engines.vllm.worker.worker import PlainWorker


class ServingWorker(PlainWorker):
    """vLLM's worker with h of some neurons times a factor (`ServingConfig`).

    No row belongs to an instruction, so that requests may come in any form, from prefix caches too.
    """

    def load_model(self, *args: Any, **options: Any) -> None:
        """Load the model, then put the factors into it; what fails is noted for the front end."""
        try:
            with counted_experts():
                super().load_model(*args, **options)
            self._sparcom_scale(self.vllm_config.additional_config)
        except Exception as error:
            note_fault(error)
            raise

    def _sparcom_scale(self, config: ServingConfig) -> None:
        rows = self.model_runner.max_num_tokens
        found = instrument(self.model_runner.get_model(), "gate")
        recorder = Recorder(
            [local.as_counted for local in found.local],
            1,
            partial=[at for at, local in enumerate(found.local) if local.partial],
            device=self.device,
        )
        counter = StepCounter(recorder, rows)
        bind_experts(found.banks, counter, rows)
        use_counter(counter)
        mine = Shard(ComponentSpace.from_json(config.sites), found.local).neuron_indices()
        index = np.frombuffer(config.index, np.int64)
        _, local, at = np.intersect1d(mine, index, assume_unique=True, return_indices=True)
        factors = np.frombuffer(config.factors, np.float64)[at]
        signs = np.frombuffer(config.signs, np.int64)[at]
        AblationBuffers(recorder, self.model_config.dtype).set(local, None, factors, signs)
