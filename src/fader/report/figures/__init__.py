"""Figures, drawn from tensors and numbers of the run; nothing is drawn by hand."""
