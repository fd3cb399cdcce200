"""emogen beside peers that do the same work, in one process, in turns. Nothing timed lives in the test suite."""

import os

from emogen.cli import LIBRARY_ENVIRONMENT

# Before numpy and torch are imported, as the command does; but threads that wait spin, as the peers' do by themselves.
for _name, _value in (LIBRARY_ENVIRONMENT | {"OMP_WAIT_POLICY": "ACTIVE"}).items():
    os.environ.setdefault(_name, _value)
