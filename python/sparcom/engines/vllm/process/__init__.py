"""Starting vLLM's engine and streaming instructions through it."""
