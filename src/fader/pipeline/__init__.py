"""What is made from what: phases, paths, artefacts, both engines. Knows nothing of torch."""
