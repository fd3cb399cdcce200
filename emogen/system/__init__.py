"""What a program needs of its computer: files that are complete or absent, processes, devices. No music."""
