"""Instruction corpora: what a record is, how a corpus is read, what a model is given of it."""
