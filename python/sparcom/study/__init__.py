"""Whole studies: several models, each base and tuned, counted, compared, ablated, on one page."""
