"""Count while the object store is full and spills to disk."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import ray
from pipeline_helpers import slow_config

from sparcom.pipeline.ray import session
from sparcom.pipeline.ray.session import ray_session
from sparcom.pipeline.run import count


def main() -> None:
    work, run = Path(sys.argv[1]), Path(sys.argv[2])
    session._STORE_BYTES = 80 << 20
    config = slow_config(work, run)
    with ray_session(config):
        held = [ray.put(np.full(10 << 20, k, np.uint8)) for k in range(30)]
        count(config)
        folder = Path(ray._private.worker._global_node.get_session_dir_path())
        files = [file for file in folder.rglob("*") if "ray_spilled" in str(file)]
        print("spilled", len(files), flush=True)
        assert files
        assert all(int(ray.get(one)[-1]) == k for k, one in enumerate(held))


if __name__ == "__main__":
    main()
