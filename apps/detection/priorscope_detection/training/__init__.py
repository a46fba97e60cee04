"""Training: examples, stages, what is minimised."""
