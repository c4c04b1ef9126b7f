"""Reading corpora of any format, row by row."""
