"""Satellite images and their labels: bands, rasters, vector labels, public data sets, synthetic terrain."""
