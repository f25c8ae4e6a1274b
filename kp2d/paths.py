"""Owns every folder: absolute, found from the package and never from the working directory."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
TRAINED_HERE = "trained_here"  # the network that notebook 02 trains last, as a method


def home() -> Path:
    """Returns the project folder: `KP2D_HOME`, else the checkout, else `~/.kp2d` for an installed package."""
    chosen = os.environ.get("KP2D_HOME")
    if chosen:
        return Path(chosen).expanduser().resolve()
    checkout = PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.home() / ".kp2d"


def notebooks() -> Path:
    """Returns the folder of the numbered notebooks."""
    return home() / "notebooks"


def data(profile: str | None = None) -> Path:
    """Returns the folder for data sets: shared downloads, or a profile's own when one is named."""
    return home() / "data" / profile if profile else home() / "data"


def results(profile: str | None = None) -> Path:
    """Returns the folder for tables; each profile has its own."""
    return home() / "results" / profile if profile else home() / "results"


def figures(profile: str) -> Path:
    """Returns a profile's folder for pictures."""
    return home() / "figures" / profile


def runs(profile: str) -> Path:
    """Returns a profile's scratch folder: executed notebooks, stage records, exported features."""
    return home() / "results" / "runs" / profile


def trained_here(profile: str) -> Path:
    """Returns the folder of the network that a profile's 02 trained last, and of what 03 makes of it."""
    return runs(profile) / TRAINED_HERE


def paper() -> Path:
    """Returns the folder of the paper's printed numbers."""
    return home() / "results" / "paper"
