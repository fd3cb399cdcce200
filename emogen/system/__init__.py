"""What a program needs of its computer: files that are whole or not there, processes, devices. It knows no music."""
