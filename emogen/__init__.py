"""emogen composes piano music for a wanted emotion and an exact length."""

__version__ = "0.4.0"
