"""Owns what the arguments of all verbs share: how help looks, image sizes, options without effect."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable
from pathlib import Path

from kp2d import checks, files, paths

# Options that name what is written.
_PLACES = ("output", "pairs", "estimators", "card", "stats", "cache")


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default of an option where that says something and its help does not."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told = action.help or ""
        silent = action.default is None or action.default is False or action.default in ([], "", ())
        return told if silent or "default" in told else super()._get_help_string(action) or ""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Keeps an example on one line, to be copied."""
        return f"{indent}{text}" if text.startswith("example: ") else super()._fill_text(text, width, indent)


def image_size(text: str) -> tuple[int, int]:
    """Reads an argument as HxW, "240x320", into (height, width), px.

    Raises:
        ArgumentTypeError: If it is none; argparse shows the message.
    """
    try:
        return checks.is_image_size(text.lower().split("x"))
    except checks.InputError as error:
        told = checks.problem(error.expected, repr(text), "Write for example 240x320.")
        raise argparse.ArgumentTypeError(str(told)) from None


SIZE = {"type": image_size, "metavar": "HxW"}  # of an option that takes one


def with_flags(text: str, options: argparse.Namespace) -> str:
    """Turns settings as the library names them into options of a verb that has them.

    In a message, "`use_tpu=True`" or "`image_size=(240, 320)`" (with the backticks) becomes "--use-tpu" or
    "--image-size 240x320".
    """

    def flag(setting: re.Match) -> str:
        name, value = setting[1], (setting[2] or "").strip("'()").replace(", ", "x")
        if not hasattr(options, name):
            return setting[0]
        return f"--{name.replace('_', '-')} {'' if value == 'True' else value}".rstrip()

    return re.sub(r"`([a-z_]+)(?:=([^`]*))?`", flag, text)


def with_place(failure: Exception, options: argparse.Namespace) -> str:
    """Returns what an error says; of a file that cannot be written, by which option it lies elsewhere."""
    told, expected = str(failure), getattr(failure, "expected", "")
    if not expected.startswith(files.WRITABLE):
        return told
    path = Path(expected.removeprefix(files.WRITABLE).strip()).absolute()
    choose = None if path.is_relative_to(paths.home()) or "output" not in vars(options) else "output"
    if path.is_relative_to(paths.runs("custom")) and "cache" in vars(options):
        choose = "cache"
    for name in _PLACES:
        value = vars(options).get(name)
        for given in filter(None, value if isinstance(value, list) else [value]):
            if Path(given).expanduser().absolute() in (path, *path.parents):
                choose = name
    return (
        re.sub(r"another folder( by KP2D_HOME)?\b", f"another folder by --{choose}", told) if choose else told
    )


def refuse_unused(options: argparse.Namespace, names: Iterable[str], what: str, of: str = "") -> None:
    """Refuses options that would change nothing: a user who gives them expects something else.

    Args:
        options: Parsed arguments.
        names: Of those without effect, as attributes of `options`.
        what: What has no use for them, for the message ("a finished model").
        of: What has, if that is worth saying ("an option of kp2d bench latency").

    Raises:
        InputError: If one of them is given.
    """
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, [])]
    if given:
        leave = "Leave it out." if len(given) == 1 else "Leave them out."
        raise checks.problem(f"no {', '.join(given)} for {what}", of or " ".join(given), leave)


def refuse_input_as_output(name: str, target: str | os.PathLike, read: Iterable[str | os.PathLike]) -> None:
    """Refuses to write over a file that a command reads; `name` is the option of the target, without dashes.

    Raises:
        InputError: If the target is one of them.
    """
    if Path(target).expanduser().resolve() in {Path(path).expanduser().resolve() for path in read}:
        raise checks.problem(f"an --{name} other than what is read", target)


def say(line: str) -> None:
    """Prints a line of news at once, also into a pipe."""
    print(line, flush=True)
