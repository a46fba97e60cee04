"""Average precision of 3D boxes."""
