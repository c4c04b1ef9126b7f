"""Job: count a base model and its tuned model on one corpus, and compare them.

    ray job submit --working-dir ray_jobs -- python compare.py --config base.toml \
        --tuned tuned.toml

Both configs are those of `sparcom count`; a run that is complete already is not counted again.
"""

import argparse
from dataclasses import asdict

from job import add_session, load, report, run_job, session_arguments

from sparcom.analysis.tuning.compare import compare
from sparcom.pipeline.run import count
from sparcom.store import Run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="TOML config of the base model")
    parser.add_argument("--tuned", required=True, help="TOML config of the tuned model")
    add_session(parser)
    arguments = parser.parse_args()
    configs = [load(path, arguments.set) for path in (arguments.config, arguments.tuned)]
    how = session_arguments(arguments)
    base, tuned = (count(config, structured_log=True, **how) for config in configs)
    result = compare(Run(base.location), Run(tuned.location))
    found = {
        "base": asdict(base),
        "tuned": asdict(tuned),
        "instructions": result.instructions,
        "tables": sorted(result.tables),
        "warnings": list(result.warnings),
    }
    return report(found, failed=base.failed + tuned.failed)


if __name__ == "__main__":
    run_job(main)
