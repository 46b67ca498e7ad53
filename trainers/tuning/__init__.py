"""Sweeps: the space, the plan, the study, the oracles, the leader, the workers, and what a sweep has taught."""
