"""A model in shards, one Ray actor each."""
