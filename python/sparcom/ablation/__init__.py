"""Ablation: silence components, and measure what the model loses on reference answers."""
