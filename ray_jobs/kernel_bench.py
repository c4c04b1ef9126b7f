"""Run the kernel bench on the GPUs of a Ray cluster, one task per node that has one.

    ray job submit --working-dir . -- python ray_jobs/kernel_bench.py

Each node needs SPARCOM installed with its CUDA part. Prints each node's page, then one JSON line.
"""

import json
import subprocess
import sys

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

# In the job's working directory, where its workers start.
BENCH = ("benchmarks/kernels.py", "--parts", "gpu")


def gpu_nodes(nodes: list[dict]) -> list[str]:
    """Ids of the living nodes with a GPU, in a fixed order."""
    return sorted(n["NodeID"] for n in nodes if n["Alive"] and n["Resources"].get("GPU", 0) >= 1)


def bench() -> str:
    """What the bench prints on this node; its own error where it fails."""
    done = subprocess.run([sys.executable, *BENCH], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"kernel_bench: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def last_json(page: str) -> dict:
    """The JSON object on the last line of a page."""
    return json.loads(page.strip().splitlines()[-1])


def main() -> None:
    ray.init()
    nodes = gpu_nodes(ray.nodes())
    if not nodes:
        raise SystemExit("kernel_bench: the cluster must have a node with a GPU, got none")
    task = ray.remote(num_gpus=1)(bench)
    pages = {
        node: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote()
        for node in nodes
    }
    results = {}
    for node, page in pages.items():
        text = ray.get(page)
        print(f"== node {node}\n{text}")
        results[node] = last_json(text)
    print(json.dumps({"bench": "kernel_bench", "nodes": results}))


if __name__ == "__main__":
    main()
