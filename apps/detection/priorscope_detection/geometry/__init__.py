"""Geometry of oriented boxes: conventions, poses, overlap, non-maximum suppression."""
