"""What stored runs say: overlap, generality, change."""
