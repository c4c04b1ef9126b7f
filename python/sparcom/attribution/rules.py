"""The rules of attribution, by name; without torch, so that the command line knows them."""

RULES = ("attribution", "relp")
"""Gradient times activation, and relevance (`relevance`)."""
MEASURES = ("prevalence", *RULES)
"""What components are ranked by."""
