"""Lets `python -m kp2d` stand for the command `kp2d`."""

import sys
from pathlib import Path

# Python puts the working folder first: a random.py there would take the place of Python's.
if not getattr(sys.flags, "safe_path", False) and Path(sys.path[0]) != Path(__file__).parent.parent:
    del sys.path[0]

from kp2d.cli import main

sys.exit(main())
