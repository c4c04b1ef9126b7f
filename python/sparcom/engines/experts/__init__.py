"""Routed experts as grouped products, for every engine."""
