"""A run from its config to its result: folder, checkpoints, provenance, progress; many runs in a row."""
