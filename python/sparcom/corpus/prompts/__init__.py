"""From instructions to token ids, and which of them are counted."""
