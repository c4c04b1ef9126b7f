"""Ablation: remove components, and measure what the model loses on reference answers."""
