"""Piano music as data: notes in memory, MIDI files, tokens, and what is measured on them. It never imports torch."""
