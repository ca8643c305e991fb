"""One's own images: fit, choose, predict, export."""
