"""Job: a full run: count, select, analyse, write the report into the run directory.

ray job submit --working-dir ray_jobs -- python run.py --config config.toml
"""

from dataclasses import asdict

from job import read_config, report, run_job, session_arguments

from sparcom.analysis.analyse import analyse
from sparcom.pipeline.run import count
from sparcom.report.page import render_report
from sparcom.store import Run
from sparcom.tracing.examples import why_not, write_examples


def main() -> int:
    config, arguments = read_config(__doc__)
    summary = count(config, structured_log=True, **session_arguments(arguments))
    run = Run(config.run_dir())
    analyse(run)
    if why_not(config) is None:
        write_examples(run, config.examples, threads=config.cpus)
    page = render_report(config.run_dir())
    return report({**asdict(summary), "report": page}, failed=summary.failed)


if __name__ == "__main__":
    run_job(main)
