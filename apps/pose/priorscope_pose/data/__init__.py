"""Annotated people: readers of the public layouts, and the boxes that detectors found."""
