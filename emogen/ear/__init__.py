"""Judges of emotion and coherence. They know neither the model nor where a piece comes from."""
