"""How a piece comes about: notes drawn one after the other while the time remaining counts down."""
