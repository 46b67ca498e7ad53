"""Trained models: measured, scored, exported, shipped."""
