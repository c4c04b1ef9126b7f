"""Models made here, to try things on: none of their figures says anything about real models."""
