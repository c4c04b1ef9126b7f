"""The formats of corpus files, each read row by row."""
