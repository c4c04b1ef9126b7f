"""The Ray side of a run: session, pool, resources, logs."""
