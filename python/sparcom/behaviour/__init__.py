"""Behaviour: answers that a model writes itself, scored right or wrong."""
