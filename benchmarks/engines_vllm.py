"""vLLM engine: counting against the bare engine and against a forward hook, tokens per second.

    python benchmarks/engines_vllm.py [--model default] [--rounds 7] [--prompts 256] [--modes eager]

Three comparisons, all of them or those that `--modes` names: `eager` and `compiled` are counting
against bare, `hook` is counting compiled against the hook, which only eager mode calls. The engines
of the comparisons stay loaded, and each round runs the same prompts through every one. All sides
run this project's worker, hence with the same allocator settings, and the counting side takes its
counts out.
`bars`: vllm_eager_ratio, vllm_compiled_ratio, vllm_best_over_hook.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from common import alternate, emit, median_ratio, print_card, print_table
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process import launch
from sparcom.engines.vllm.worker.rows import KEY
from sparcom.models import resolve_model

# comparison -> its bar, the engine it is measured against, and the counting engine
MODES = {
    "eager": ("vllm_eager_ratio", "bare eager", "counting eager"),
    "compiled": ("vllm_compiled_ratio", "bare compiled", "counting compiled"),
    "hook": ("vllm_best_over_hook", "hook eager", "counting compiled"),
}


def hook_worker() -> type:
    """vLLM's worker with the usual way to count: a forward hook on every activation module."""
    import torch

    from sparcom.engines.vllm.worker.worker import PlainWorker

    class HookWorker(PlainWorker):
        """Counts per instruction with plain torch; eager mode only."""

        def load_model(self, *args: Any, **options: Any) -> None:
            super().load_model(*args, **options)
            runner, spans, counts = self.model_runner, [], {}
            forward = runner._model_forward

            def hook(module, inputs, output):
                fired = inputs[0][:, : output.shape[1]] > 0
                for slot, start, stop in spans:
                    counts[module][slot] += fired[start:stop].sum(0, dtype=torch.int32)

            def counted_forward(**inputs):
                ids, bounds = runner.input_batch.req_ids, runner.query_start_loc.np
                notes = [runner.requests[r].sampling_params.extra_args or {} for r in ids]
                spans[:] = [
                    (n[KEY]["slot"], int(bounds[i]), int(bounds[i + 1]))
                    for i, n in enumerate(notes)
                ]
                return forward(**inputs)

            for name, module in runner.model.named_modules():
                if name.endswith("mlp.act_fn"):
                    width = runner.model.config.intermediate_size
                    slots = self.vllm_config.scheduler_config.max_num_seqs
                    counts[module] = torch.zeros(slots, width, dtype=torch.int32)
                    module.register_forward_hook(hook)
            runner._model_forward = counted_forward

    return HookWorker


def __getattr__(name: str) -> Any:
    """`engines_vllm.HookWorker`, by which vLLM's processes find it, made when asked for."""
    if name == "HookWorker":
        return hook_worker()
    raise AttributeError(name)


@contextmanager
def worker_class(name: str) -> Iterator[None]:
    """Within the block engines start with this worker."""
    build = launch.engine_args
    launch.engine_args = lambda *args: {**build(*args), "worker_cls": name}
    try:
        yield
    finally:
        launch.engine_args = build


def make_prompts(n: int, seed: int = 0) -> list[Prompt]:
    """n prompts of 20 to 180 random tokens, all counted."""
    rng = random.Random(seed)
    prompts = []
    for i in range(n):
        length = rng.randint(20, 180)
        ids = tuple(rng.randrange(3, 32000) for _ in range(length))
        prompts.append(Prompt(f"p{i}", ids, ((0, length),)))
    return prompts


def load_engines(model: str, names: Sequence[str]) -> dict[str, VllmEngine]:
    """Engines by name: `bare`, `counting` or `hook`, then `eager` or `compiled`."""
    engines: dict[str, VllmEngine] = {}
    try:
        for name in names:
            side, mode = name.split()
            options = VllmOptions(model, compile=mode == "compiled", count=side == "counting")
            with worker_class("engines_vllm.HookWorker") if side == "hook" else nullcontext():
                engines[name] = VllmEngine(options)
    except BaseException:
        close(engines)
        raise
    return engines


def close(engines: dict[str, VllmEngine]) -> None:
    """End all engines."""
    for engine in engines.values():
        engine.close()


def call_of(engine: VllmEngine, prompts: list[Prompt]) -> Callable[[], int]:
    """One round of an engine: all prompts, and their counts where it counts."""
    if engine.options.count:
        return lambda: sum(len(counted.ids) for counted in engine.count(prompts))
    return lambda: engine.read(prompts)


def bench_vllm(
    model: str = "default",
    rounds: int = 7,
    n_prompts: int = 256,
    modes: Sequence[str] = tuple(MODES),
) -> None:
    """Print table and JSON line of the vLLM engine."""
    prompts = make_prompts(n_prompts)
    tokens = sum(len(p.token_ids) for p in prompts)
    names = list(dict.fromkeys(name for mode in modes for name in MODES[mode][1:]))
    engines = load_engines(resolve_model(model), names)
    try:
        times = alternate({n: call_of(e, prompts) for n, e in engines.items()}, rounds)
        count_bytes = max(engine.count_bytes for engine in engines.values())
    finally:
        close(engines)
    print_card()
    speed = {name: tokens / statistics.median(seconds) for name, seconds in times.items()}
    print_table(("engine", "tokens/s"), [(n, f"{value:.0f}") for n, value in speed.items()])
    ratios = {
        bar: median_ratio(times[baseline], times[ours])
        for bar, baseline, ours in (MODES[mode] for mode in modes)
    }
    compared = [
        (f"{ours} / {baseline}", "{:.3f}".format(*ratios[bar]), shown(ratios[bar][1:]))
        for bar, baseline, ours in (MODES[mode] for mode in modes)
    ]
    print_table(("comparison", "ratio", "95 % interval"), compared)
    print(f"memory over bare: {count_bytes / 1e6:.1f} MB of counts")
    emit(
        "engines.vllm",
        {bar: round(ratio[0], 4) for bar, ratio in ratios.items()},
        intervals={bar: [round(v, 4) for v in ratio[1:]] for bar, ratio in ratios.items()},
        tokens_per_s={name: round(value, 1) for name, value in speed.items()},
        count_bytes=count_bytes,
        prompts=n_prompts,
        tokens=tokens,
        vllm=launch.check_version(),
    )


def modes_of(text: str) -> list[str]:
    """`eager,hook` -> its parts; raises where one is not known."""
    modes = text.split(",")
    if unknown := sorted(set(modes) - set(MODES)):
        raise argparse.ArgumentTypeError(f"expected {', '.join(MODES)}, got {unknown[0]!r}")
    return modes


def shown(interval: Sequence[float]) -> str:
    """`1.020 to 1.044`."""
    return "{:.3f} to {:.3f}".format(*interval)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--modes", type=modes_of, default=list(MODES), help=", ".join(MODES))
    given = parser.parse_args()
    bench_vllm(given.model, given.rounds, given.prompts, given.modes)


if __name__ == "__main__":
    main()
