"""Randomised comparisons: do effects differ between people, along which dimensions, and how are they spread."""
