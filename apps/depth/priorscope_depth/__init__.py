"""priorscope depth: a photograph in, a depth map out."""
