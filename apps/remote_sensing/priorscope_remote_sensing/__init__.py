"""priorscope remote-sensing: satellite images in, classes and land-cover maps out."""
