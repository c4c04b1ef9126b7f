"""What a researcher imports: a model that counts in memory, its counts, a stored run."""
