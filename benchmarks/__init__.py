"""Measurements of speed and memory. Times are compared within one interleaved run, because machines are noisy."""
