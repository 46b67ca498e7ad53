"""What a run tells TensorBoard: events, HParams, pictures."""
