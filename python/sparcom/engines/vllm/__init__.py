"""The serving engine, on vLLM."""
