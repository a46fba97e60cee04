"""Checkpoints: Diffusion Policy's files, LeRobot's folders, and the folder that both are converted to."""
