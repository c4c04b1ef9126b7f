"""Job: a full run: count, select, analyse, write the report into the run directory.

ray job submit --working-dir ray_jobs -- python run.py --config config.toml
"""

from dataclasses import asdict

from job import read_config, report, run_job, session_arguments

from sparcom.pipeline.run import count
from sparcom.report.of_run import write_page


def main() -> int:
    config, arguments = read_config(__doc__)
    summary = count(config, structured_log=True, **session_arguments(arguments))
    page = write_page(config.run_dir())
    return report({**asdict(summary), "report": page}, failed=summary.failed)


if __name__ == "__main__":
    run_job(main)
