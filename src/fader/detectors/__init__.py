"""Anything with a row in a table: EAR, FADeR and the baselines."""
