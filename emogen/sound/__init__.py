"""What people hear and see: a player of SoundFonts, pictures, pages. It knows no model and no torch."""
