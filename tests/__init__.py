"""The tests, as a package: they share ``midi_files``."""
