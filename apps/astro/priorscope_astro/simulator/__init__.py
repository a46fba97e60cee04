"""Simulated galaxies with exact labels and simulated volunteers: data for training and tests, without a telescope."""
