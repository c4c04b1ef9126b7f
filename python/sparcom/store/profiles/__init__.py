"""Profiles: sums over the instructions of each cell, and their merging."""
