"""Figures about a voice, and the blind listening test."""
