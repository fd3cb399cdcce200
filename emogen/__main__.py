"""``python -m emogen``: the same command as ``emogen``."""

from emogen.cli import main

if __name__ == "__main__":
    main()
