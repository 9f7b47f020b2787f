"""Data sets of the starter programs."""
