"""Images with their depth and normals, from wherever they come: what depth models are trained on."""
