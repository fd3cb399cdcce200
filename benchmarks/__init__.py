"""emogen beside peers that do the same work, in one process, in turns. Nothing timed lives in the test suite."""

import os

from emogen.cli import LIBRARY_ENVIRONMENT

for _name, _value in LIBRARY_ENVIRONMENT.items():  # as the command does, before numpy and torch are imported
    os.environ.setdefault(_name, _value)
