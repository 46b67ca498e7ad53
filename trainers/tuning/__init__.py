"""Sweeps: the space, the plan, the study, the oracle, the leader, the pool of workers, a trial."""
