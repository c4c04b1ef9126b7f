"""What a reader of the page opens: instructions, single pairs, members of a set, text examples."""
