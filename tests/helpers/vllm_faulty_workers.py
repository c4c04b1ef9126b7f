"""Workers that fail: tests show that what goes wrong in one reaches the caller.

vLLM's processes find one by `vllm_faulty_workers.PoisonedWorker`, and make it there: importing
vLLM's own worker starts its machinery.
"""

POISON = 91  # a token


def make_worker(name: str) -> type:
    from sparcom.engines.vllm.worker.worker import CountingWorker

    class PoisonedWorker(CountingWorker):
        """Fails on one token."""

        def execute_model(self, scheduler_output, *args, **options):
            for request in scheduler_output.scheduled_new_reqs:
                if POISON in request.prompt_token_ids[1:]:
                    self.model_runner._model_forward = self.fail
            return super().execute_model(scheduler_output, *args, **options)

        def fail(self, **inputs):
            raise ZeroDivisionError("poison\nand more lines")

    class DeafWorker(CountingWorker):
        """Has a model whose passes nobody counts."""

        def load_model(self, *args, **options):
            super().load_model(*args, **options)
            self.model_runner._model_forward = self.model_runner._model_forward._forward

    class HooklessWorker(CountingWorker):
        """Runs on a vLLM without the part that counting hooks into."""

        def _sparcom_instrument(self, config):
            del self.model_runner.query_start_loc
            super()._sparcom_instrument(config)

    class RoomlessWorker(CountingWorker):
        """Fails on one rank, while the other waits for it."""

        def load_model(self, *args, **options):
            if self.rank == 1:
                self.model_runner.load_model = self.fail
            super().load_model(*args, **options)

        def fail(self, *args, **options):
            raise MemoryError("no room for the weights")

    class KernelWorker(CountingWorker):
        """Its model calls one of vLLM's Triton kernels."""

        def load_model(self, *args, **options):
            super().load_model(*args, **options)
            self.model_runner._model_forward = self.call_kernel

        def call_kernel(self, **inputs):
            from vllm.v1.attention.ops import metadata

            metadata._token_request_mapping_kernel[(1,)]()

    made = (PoisonedWorker, DeafWorker, HooklessWorker, RoomlessWorker, KernelWorker)
    return {w.__name__: w for w in made}[name]


def __getattr__(name: str) -> type:
    if name.endswith("Worker"):
        return make_worker(name)
    raise AttributeError(name)
