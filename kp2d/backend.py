"""Owns what must be said to the numeric backend before it is first imported."""

from __future__ import annotations

import os


def quiet() -> None:
    """Keeps TensorFlow from printing its start-up notes; a level that the user has set stays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
