"""Environments that policies act in, and experts that show how."""
