"""Scores, metrics, the label-free protocol and the cost of inference."""
