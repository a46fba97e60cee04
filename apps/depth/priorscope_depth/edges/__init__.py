"""Crisp edge maps by latent diffusion in five steps (DiffusionEdge), and how they are measured."""
