"""Workers without what makes counts exact, which show that each part is needed, and one with hooks.

vLLM's processes find one by `vllm_workers.ForgetfulWorker`, and make it there: importing vLLM's own
worker starts its machinery.
"""

import functools

import numpy as np

HANDLINGS = (
    "positions that were read before",
    "positions of chunks",
    "the batch's own order",
    "passes that nobody asked for",
    "counts of aborted requests",
    "the kernel",
    "tokens after the end",
)


def make_worker(name: str) -> type:
    from sparcom.counting import recorder as recorder_module
    from sparcom.engines.vllm.worker.worker import CountingWorker

    class ForgetfulWorker(CountingWorker):
        """Forgets one of HANDLINGS when told to.

        Counts that are not conserved are noted, for `sparcom_broken`, and come out as zeros.
        """

        def load_model(self, *args, **options):
            super().load_model(*args, **options)
            self.broken, self.restore = [], lambda: None

        def sparcom_take(self, ids, slots, tokens):
            reply = super().sparcom_take(ids, slots, tokens)
            if "error" in reply:
                self.broken.append(reply["error"])
                CountingWorker.sparcom_drop(self, slots)
                width = sum(site.as_counted.width for site in self.sparcom_found.local)
                zeros = np.zeros((len(ids), width), np.int32)
                recomputed = self.sparcom_rows.recomputed
                reply = {"neurons": zeros.tobytes(), "dtype": zeros.dtype.str, "experts": b"",
                         "signs": b"", "magnitudes": b"", "recomputed": recomputed,
                         "cached": self.sparcom_rows.cached}  # fmt: skip
            return reply

        def sparcom_drop(self, slots):
            if self.keep_aborted:
                self.sparcom_rows.close(slots)
            else:
                super().sparcom_drop(slots)

        keep_aborted = False

        def sparcom_broken(self) -> list[str]:
            """What was not conserved since the last call."""
            broken, self.broken = self.broken, []
            return broken

        def sparcom_runner(self) -> str:
            """The class of vLLM's model runner, by its whole name."""
            kind = type(self.model_runner)
            return f"{kind.__module__}.{kind.__qualname__}"

        def sparcom_dummy_passes(self) -> None:
            """The passes of warm-up and profiling, of no request."""
            self.model_runner.profile_run()
            self.execute_dummy_batch()

        def sparcom_remember(self) -> None:
            self.restore()
            self.restore = lambda: None

        def sparcom_forget(self, handling: str) -> None:
            """Count without one of HANDLINGS, until `sparcom_remember`."""
            rows, counter = self.sparcom_rows, self.sparcom_counter
            fill, first_seen = rows.fill, []

            def undo():
                for owner, name in ((rows, "fill"), (counter, "end"), (self, "keep_aborted")):
                    owner.__dict__.pop(name, None)
                recorder_module.act_mul_count = kernel
                counter._ends = ends

            kernel, ends = recorder_module.act_mul_count, counter._ends
            self.restore = undo

            def forget_read(*step):
                fill(*step)
                for reading in rows._readings.values():
                    reading.read = 0

            def forget_chunks(slot_of_row, requests, notes, starts, lengths):
                fill(slot_of_row, requests, notes, [0] * len(starts), lengths)

            def forget_order(slot_of_row, requests, notes, starts, lengths):
                """Requests in the order in which they came first."""
                first_seen.extend(r for r in requests if r not in first_seen)
                note_of = dict(zip(requests, notes, strict=True))
                requests = sorted(requests, key=first_seen.index)
                fill(slot_of_row, requests, [note_of[r] for r in requests], starts, lengths)

            def wrong_kernel(gate, up, bins, counts, rows, **options):
                out = kernel(gate, up, bins, counts, rows, **options)
                counts[:, -1] += (rows > 0).int() * (counts[:, -1] < rows)
                return out

            match HANDLINGS.index(handling):
                case 0:
                    rows.fill = forget_read
                case 1:
                    rows.fill = forget_chunks
                case 2:
                    rows.fill = forget_order
                case 3:
                    counter.end = lambda: None
                case 4:
                    self.keep_aborted = True
                case 5:
                    recorder_module.act_mul_count = wrong_kernel
                case 6:
                    counter._ends = ends[:0]

    class LateWorker(CountingWorker):
        """Puts counting into the model when it has been compiled."""

        def _sparcom_instrument(self, config):
            """Not yet."""

        def compile_or_warm_up_model(self):
            result = super().compile_or_warm_up_model()
            super()._sparcom_instrument(self.vllm_config.additional_config)
            return result

    class HookedWorker(CountingWorker):
        """Counts a second time, by plain hooks on what gate and up put out."""

        def load_model(self, *args, **options):
            super().load_model(*args, **options)
            runner, self.hooked, self.real = self.model_runner, {}, False
            forward = runner._model_forward

            def real_pass(**inputs):
                self.real = True
                try:
                    return forward(**inputs)
                finally:
                    self.real = False

            runner._model_forward = real_pass
            for name, module in runner.get_model().named_modules():
                if name.endswith("gate_up_proj"):
                    module.register_forward_hook(functools.partial(self.note, name))

        def note(self, name, module, inputs, output):
            if self.real:
                out = output[0] if isinstance(output, tuple) else output
                fired = (out[:, : out.shape[1] // 2] > 0).sum(0).numpy()
                self.hooked[name] = self.hooked.get(name, 0) + fired

        def sparcom_hooked(self) -> bytes:
            """[layers, width] int64: firings since the last call, in the order of the layers."""
            fired, self.hooked = list(self.hooked.values()), {}
            return np.stack(fired).astype(np.int64).tobytes()

    return {w.__name__: w for w in (ForgetfulWorker, LateWorker, HookedWorker)}[name]


def __getattr__(name: str) -> type:
    if name.endswith("Worker"):
        return make_worker(name)
    raise AttributeError(name)
