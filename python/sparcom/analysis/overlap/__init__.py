"""Pairs of sets: overlap by category, and by depth."""
