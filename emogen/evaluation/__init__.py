"""Measurements of a voice, and the blind listening test."""
