"""Job: count one corpus on many models or checkpoints, one after the other.

    ray job submit --working-dir ray_jobs -- python sweep.py --config config.toml \
        --models step-1000 step-2000 final --out runs/sweep

Each model has a run directory of its own below --out. A model that fails does not stop the others;
the job then ends with exit code 1. Run again with --resume, it does what is missing.
"""

import argparse
from dataclasses import asdict, replace

from job import add_session, load, report, run_job, session_arguments

from sparcom.errors import SparcomError
from sparcom.pipeline.run import count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="TOML config that all models share")
    parser.add_argument("--models", required=True, nargs="+", help="folders or hub ids")
    parser.add_argument("--out", required=True, help="folder of the run directories")
    add_session(parser)
    arguments = parser.parse_args()
    shared = load(arguments.config, arguments.set)
    done, failed = {}, 0
    for number, model in enumerate(arguments.models):
        config = replace(shared, model=model, out=f"{arguments.out}/{run_name(number, model)}")
        try:
            summary = count(config, structured_log=True, **session_arguments(arguments))
            done[model] = asdict(summary)
            failed += summary.failed
        except SparcomError as error:
            done[model] = {"error": str(error)}
            failed += 1
    return report(done, failed=failed)


def run_name(number: int, model: str) -> str:
    """`00-step-1000`: in the order given, so that a trajectory reads from the folder."""
    name = model.rstrip("/").rsplit("/", 1)[-1]
    return f"{number:02d}-" + "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


if __name__ == "__main__":
    run_job(main)
