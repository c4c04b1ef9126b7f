"""Job: count a corpus on a model, on the cluster that runs this.

    ray job submit --working-dir ray_jobs -- python count.py --config config.toml

The config is the one of `sparcom count`; `--set key=value` overrides its keys.
"""

from job import read_config, report, run_job, session_arguments

from sparcom.pipeline.run import count


def main() -> int:
    config, arguments = read_config(__doc__)
    summary = count(config, structured_log=True, **session_arguments(arguments))
    return report(summary, failed=summary.failed)


if __name__ == "__main__":
    run_job(main)
