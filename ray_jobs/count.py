"""Job: count a corpus on a model, on the cluster that runs this.

    ray job submit --working-dir . -- python ray_jobs/count.py --config config.toml

The config is the one of `sparcom count`; `--set key=value` overrides its keys.
"""

import sys

from job import read_config, report, session_arguments

from sparcom.service import run_count


def main() -> int:
    config, arguments = read_config(__doc__)
    summary = run_count(config, structured_log=True, **session_arguments(arguments))
    return report(summary, failed=summary.failed)


if __name__ == "__main__":
    sys.exit(main())
