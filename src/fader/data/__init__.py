"""Data sets: fetching, indexing and decoding them, and painting synthetic defects."""
