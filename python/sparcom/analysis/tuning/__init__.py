"""How tuning changed a model."""
