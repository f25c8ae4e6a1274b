"""Lets `python -m kp2d` stand for the command `kp2d`."""

import sys

from kp2d.cli import main

sys.exit(main())
