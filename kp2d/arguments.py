"""Owns how the command line explains itself: the layout of its help, and an example of every verb."""

from __future__ import annotations

import argparse

EXAMPLES = {
    "match": "kp2d match left.jpg right.jpg --method kp2d_tiny_s --precision int8 -o matches.png",
    "demo": "kp2d demo 0 --reference cover.jpg",
    "evaluate": "kp2d evaluate --method kp2d_tiny_s --data hpatches --output scores.csv",
    "train": "kp2d train --data ~/photographs -o runs/mine --preset kp2d_tiny_s --steps 20000",
    "quantize": "kp2d quantize kp2d_tiny_s -o model.tflite model.h --image-size 120x160",
    "lint": "kp2d lint model.tflite --strict",
    "compile": "kp2d compile kp2d_tiny_s --image-size 240x320",
    "reproduce": "kp2d reproduce --profile fast --stages 05,06 -p top_k=[300]",
    "sweep": "kp2d sweep --preset kp2d_tiny_s --precision float32 int8 --image-size 88x88 240x320",
    "report": "kp2d report --profile fast",
    "prepare": "kp2d prepare --profile fast",
    "download": "kp2d download hpatches --folder ~/data",
    "bench": "kp2d bench latency --preset kp2d_tiny_s --image-size 240x320 --threads 1 4",
    "readme": "kp2d readme --check",
    "doctor": "kp2d doctor --deep",
}


def example(verb: str) -> str | None:
    """Returns what stands at the end of a verb's help; None for a verb without an example."""
    return f"example: {EXAMPLES[verb]}" if verb in EXAMPLES else None


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default of an option where that says something and its help does not."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told = action.help or ""
        silent = action.default is None or action.default is False or action.default in ([], "", ())
        return told if silent or "default" in told else super()._get_help_string(action) or ""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Keeps an example on one line, to be copied."""
        return f"{indent}{text}" if text.startswith("example: ") else super()._fill_text(text, width, indent)
