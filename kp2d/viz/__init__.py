"""Drawing only: matches, keypoints, charts, and the interactive viewer."""

import contextlib
import importlib
import importlib.util
import os
import sys


def _import_matplotlib() -> None:
    """Imports Matplotlib even where `MPLBACKEND` has what it refuses, as a name out of an older version.

    The variable stays as it is, and a backend that Matplotlib knows stays chosen for the user's own figures.
    """
    chosen = os.environ.pop("MPLBACKEND")
    try:
        matplotlib = importlib.import_module("matplotlib")
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = chosen
    finally:
        os.environ["MPLBACKEND"] = chosen


if (
    os.environ.get("MPLBACKEND")
    and "matplotlib" not in sys.modules
    and importlib.util.find_spec("matplotlib") is not None
):
    _import_matplotlib()
