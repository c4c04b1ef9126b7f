"""Job: a study: several models, base and tuned, counted, compared, ablated, on one page.

    ray job submit --working-dir ray_jobs -- python study.py --config /path/to/paper.toml

A model that fails does not stop the others; the job then ends with exit code 1. Submitted again, it
does what is missing. Counting runs on the cluster; comparing, ablating and the page in the job.
"""

import argparse
from dataclasses import asdict

from job import report, run_job

from sparcom.study.config import load_study
from sparcom.study.run import run_study


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="TOML file, as of `sparcom study`")
    parser.add_argument("--out", help="directory of the study (default: the file's)")
    arguments = parser.parse_args()
    study = load_study(arguments.config, out=arguments.out)
    summary = run_study(study, structured_log=True)
    return report(asdict(summary), failed=len(summary.problems) + summary.set_aside)


if __name__ == "__main__":
    run_job(main)
