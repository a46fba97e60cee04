"""Demonstrations: readers of the public layouts, and the windows that training draws from them."""
