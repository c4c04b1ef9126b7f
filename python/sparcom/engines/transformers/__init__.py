"""The embedded engine, on transformers."""
