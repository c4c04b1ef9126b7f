"""Counting: the fused op, its plain reference, and the recorder that uses it."""
