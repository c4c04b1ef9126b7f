"""Engines: what runs a model and counts."""
