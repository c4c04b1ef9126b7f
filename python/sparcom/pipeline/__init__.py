"""The pipeline: a corpus is planned into parts, Ray actors count them, parts are stored.

    plan       corpus -> prompts -> corpus.parquet, run.json         the driver, streaming
    ray.pool   part numbers -> actors                                the driver
    actor      part -> engine -> counts, sets, profile -> files      actors, each with a model
    merging    profiles of parts -> profile of the run               the driver, or Ray tasks
    run        all of it, under one lock; run.json says complete     the driver
    identify   stored counts -> other sets                           the driver

Only part numbers and a line of figures per part cross the network: actors read prompts from, and
write results to, the run directory.
"""
