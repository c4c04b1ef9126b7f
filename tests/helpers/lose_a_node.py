"""Count on a cluster of two nodes, and take one away while it counts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import ray
from pipeline_helpers import slow_config, some_parts_done, when
from ray.cluster_utils import Cluster

from sparcom.pipeline.run import count


def main() -> None:
    work, run = Path(sys.argv[1]), Path(sys.argv[2])
    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

    def remove() -> None:
        cluster.remove_node(node, allow_graceful=False)
        print("node removed", flush=True)

    with when(some_parts_done(run), remove):
        count(slow_config(work, run, actors=2))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
