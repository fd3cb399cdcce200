"""The tests, as a package: they share makers of music, files and networks."""
