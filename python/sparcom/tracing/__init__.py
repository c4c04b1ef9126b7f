"""Traces: what a unit does, token by token."""
