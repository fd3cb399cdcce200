"""Composing: notes drawn one after another while the time remaining counts down."""
