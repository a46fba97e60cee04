"""Frames of several agents from the public data sets' layouts: points, poses and boxes by object id."""
