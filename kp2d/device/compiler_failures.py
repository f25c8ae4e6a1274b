"""Owns what the Edge TPU compiler says when it makes no model, and what to do about each sentence."""

from __future__ import annotations

import errno
import re
import signal

from kp2d.checks import InputError, RunError, problem

COLAB = (
    "https://colab.research.google.com/github/google-coral/tutorials/blob/master/compile_for_edgetpu.ipynb"
)

_MODEL = "a model that the Edge TPU compiler takes"
_MACHINE = "a machine that can run the Edge TPU compiler"
_RUN = "the Edge TPU compiler to finish"  # not the user's fault

_AGAIN = "Try again; if it stays so, choose a smaller image size."
_FOREIGN = f"It is a program for x86-64 Linux; compile in Google Colab instead: {COLAB}"
_INVALID = "Make the model anew with kp2d quantize."
_LOADER = "It needs a 64-bit system with glibc, such as Debian or Ubuntu, and its package as a whole."
_OLD = "The compiler knows the operators of TensorFlow 2.6:"
_WITHOUT = "Export the model without this operator."

# Sentence, what it is about, and the remedy; a telling sentence stands before a general one.
_FAILURES = (
    (r"Model not quantized", _MODEL, "Quantize it to int8 first, with every activation."),
    (
        r"Didn't find op for builtin opcode 'DEPTH_TO_SPACE' version '\d+'",
        _MODEL,
        "The Edge TPU has no such operator; kp2d compile and kp2d quantize --target edgetpu rewrite it.",
    ),
    (
        r"Didn't find op for builtin opcode '\w+ ?' version '\d+'",
        _MODEL,
        f"{_OLD} lower the version that the file states, if the operator needs no newer one, or convert with "
        "an older TensorFlow.",
    ),
    (r"Op builtin_code out of range: \d+", _MODEL, f"{_OLD} export the model without newer ones."),
    (r"Encountered unresolved custom op: \w+", _MODEL, _WITHOUT),
    (
        r"Attempting to use a delegate that only supports static-sized tensors",
        _MODEL,
        "Give every tensor a fixed size, and the batch the size 1.",
    ),
    (
        r"Compilation failed due to large activation tensors in model",
        _MODEL,
        "Choose a smaller image size.",
    ),
    (r"'tfl\.\w+' op is not supported on DarwiNN", _MODEL, _WITHOUT),
    (r"Model failed in Tflite interpreter", _MODEL, _INVALID),
    (r"Model could not be parsed", _MODEL, _INVALID),
    (r"Registration failed", _MODEL, _INVALID),
    (r"Invalid model", _MODEL, _INVALID),
    (r"Compilation timeout", _RUN, "Give it more time, or choose a smaller image size."),
    (r"terminating with uncaught exception of type [^\n]+", _RUN, _AGAIN),
    (r"Internal compiler error", _RUN, _AGAIN),
    (r"Compilation failed!", _RUN, f"It gives no reason. {_AGAIN}"),
    (r"Exec format error|cannot execute binary file", _MACHINE, _FOREIGN),
    (r"error while loading shared libraries: [^\s:]+", _MACHINE, _LOADER),
)
_STARTS = {
    errno.ENOEXEC: _FOREIGN,
    errno.EACCES: "Make the file executable (chmod +x).",
    errno.ENOENT: f"Its loader is missing. {_LOADER}",
}


def failed(text: str) -> bool:
    """Tells whether a log holds a sentence of failure; a search for a delegate may succeed after some."""
    return any(re.search(pattern, text) for pattern, _, _ in _FAILURES)


def failure(text: str, code: int = 1) -> InputError | RunError:
    """Names what went wrong when the compiler made no model.

    Args:
        text: What it printed.
        code: Its exit status; negative for a signal.

    Returns:
        The error, for the caller to raise: an InputError if the model or the machine does not fit, a RunError
        if the compiler broke off. It holds the compiler's sentence and a remedy.
    """
    for pattern, expected, remedy in _FAILURES:
        if found := re.search(pattern, text):
            received = f"its answer '{found[0].strip()}'"
            return _broke_off(received, remedy) if expected is _RUN else problem(expected, received, remedy)
    number = -code if code < 0 else code - 128  # a shell around the program adds 128
    if number in {each.value for each in signal.Signals}:
        return _broke_off(f"a crash by {signal.Signals(number).name}", _AGAIN)
    last = (text.strip().splitlines() or ["nothing"])[-1].strip()
    return _broke_off(f"no model, exit status {code} and at last '{last}'", _AGAIN)


def _broke_off(received: str, remedy: str) -> RunError:
    """Builds a RunError in the form of `kp2d.checks.problem`."""
    return RunError(f"expected {_RUN}; received {received}. {remedy}")


def cannot_start(program: str, error: OSError) -> InputError:
    """Explains why the system did not start the compiler.

    Args:
        program: Its path.
        error: What the system said.

    Returns:
        The error, for the caller to raise.
    """
    remedy = _STARTS.get(error.errno or 0, "Install it again.")
    return problem(_MACHINE, f"{program}: {error.strerror or error}", remedy)
