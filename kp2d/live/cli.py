"""Owns `kp2d demo`: its arguments and what they mean."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kp2d import arguments, checks, files
from kp2d.methods import cli as method_cli

if TYPE_CHECKING:
    from kp2d.methods.extractors import Extractor


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d demo` to the parser of the verb."""
    parser.add_argument(
        "source",
        nargs="?",
        default="0",
        help="number of a camera, a video, a folder of pictures, a picture (reduced to 8 megapixels), or the"
        " address of a stream",
    )
    method_cli.add_arguments(parser, method="kp2d_tiny_s", precision="int8")
    parser.add_argument("--threads", type=int, help="of a .tflite model; default: one a core")
    parser.add_argument(
        "--image-size",
        **arguments.SIZE,
        help="size the method sees; default: as many pixels as 240x320, in the frame's proportions",
    )
    parser.add_argument("--top-k", type=int, default=300, help="keypoints kept a frame")
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, help="smallest score of a network's keypoint, [0, 1)"
    )
    parser.add_argument("--reference", metavar="IMAGE", help="picture to find in every frame")
    parser.add_argument("-o", "--output", metavar="VIDEO", help="video to write (.mp4, .avi or .webm)")
    parser.add_argument("--stats", metavar="CSV", help="table to write, a row a frame")
    parser.add_argument(
        "--headless", action="store_true", help="open no window; implied where there is no display"
    )
    parser.add_argument("--max-frames", type=int, help="stop after so many frames")
    parser.add_argument("--loop", action="store_true", help="begin a video or folder again at its end")
    parser.add_argument("--mirror", action="store_true", help="show frames as in a mirror")


def run_demo(options: argparse.Namespace) -> None:
    """Shows the demonstration and says what came out of it.

    Raises:
        InputError: If a value is refused, or a source or file cannot be used.
        RunError: If the video cannot be written.
    """
    from kp2d import images
    from kp2d.live import demo, player, video

    _check(options)
    settings = demo.Settings(
        image_size=options.image_size,
        top_k=options.top_k,
        score_threshold=options.score_threshold,
        mirror=options.mirror,
    )
    output = video.check_video(options.output) if options.output else None
    table = player.Table(options.stats) if options.stats else None
    extractor = _extractor(options)
    reference = images.bounded(images.read_image(options.reference)) if options.reference else None
    shown = demo.Demo(extractor, settings, reference=reference)
    headless = options.headless or not player.can_show()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_terminated_is_interrupted())
        source = stack.enter_context(video.open_source(options.source, loop=options.loop))
        if headless and options.max_frames is None and (source.live or options.loop):
            _say("runs until Ctrl-C")
        if headless and not options.headless:
            _say("no display here: running without a window")
        recorder = video.Recorder(output, fps=source.fps, live=source.live) if output else None
        for target in (recorder, table):
            if target is not None:
                stack.enter_context(target)
        summary = player.play(
            source,
            shown,
            recorder=recorder,
            table=table,
            window=None if headless else stack.enter_context(player.Window()),
            max_frames=options.max_frames,
            snapshots=output,
            report=_progress if headless and sys.stderr.isatty() else None,
        )
    for trouble in _troubles(source):
        _say(trouble)
    written = [str(target.path) for target in (recorder, table) if target is not None and summary.frames]
    told = f"{summary.line()}; wrote {', '.join(written)}" if written else summary.line()
    print(f"{extractor.label}: {told}")


def _check(options: argparse.Namespace) -> None:
    """Refuses what cannot go together, before anything is opened."""
    for name in ("max_frames", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise checks.problem(f"a --{name.replace('_', '-')} of at least 1", value)
    for name in ("output", "stats"):
        target = getattr(options, name)
        if target is not None:
            read = filter(None, (options.source, options.reference))
            arguments.refuse_input_as_output(name, target, read)
    if options.output is not None and Path(options.source).expanduser().is_dir():
        files.check_outside(options.output, options.source, below=False)  # snapshots go beside the video


def _extractor(options: argparse.Namespace) -> Extractor:
    """Makes the method; unlike other verbs, in int8 unless told, and with as many threads as told."""
    from kp2d.methods import extractors, weights

    method = method_cli.method_from(options)
    if method.precision is None and method.split()[0].name in weights.shipped("int8"):
        method = extractors.Method(method.name, "int8")
    if method.precision in (None, "float32") and not method.name.endswith(weights.MODEL):
        arguments.refuse_unused(options, ("threads",), options.method, "an option of .tflite models")
    return method_cli.extractor_from(options, method)


def _troubles(source: Any) -> Iterator[str]:
    if source.skipped:
        yield f"{source.skipped} unreadable frames of {source.name} were left out"
    if source.trouble:
        yield source.trouble


def _say(line: str) -> None:
    print(f"kp2d demo: {line}", file=sys.stderr)


def _progress(line: str) -> None:
    print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """Lets `kill` and services end a run as Ctrl-C does, with its files whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
