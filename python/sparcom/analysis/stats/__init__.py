"""Intervals, nulls and tests that know nothing of neurons."""
