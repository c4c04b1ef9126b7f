"""What a config means: engine options, and what may change between sessions."""
