"""Drawn streets and the LiDAR sweeps of several cars and a road-side unit in them (Embree casts the rays).

`roads` lays out a street, `traffic` drives it, `bodies` are what moves and stands in it, `lidar` is the sensor,
`scenario` puts them together into frames, and `write` stores them in OPV2V's layout.
"""
