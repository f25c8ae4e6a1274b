"""Owns the way to a Coral Edge TPU: its library, its stick, and what is missing when it does not answer."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from kp2d.checks import InputError, first_line, problem

CUSTOM_OPERATOR = b"edgetpu-custom-op"  # what the Edge TPU compiler leaves of the operators that it mapped
LIBRARIES = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
LIBRARY_VARIABLE = "EDGETPU_LIBRARY"  # names another library
# USB vendor and product of a stick: before and after its firmware is loaded, which the first use does.
_USB = {("1a6e", "089a"), ("18d1", "9302")}
_INSTALL = "install libedgetpu1-std as docs/devices.md says"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """An Edge TPU that the system sees."""

    kind: str  # "usb" or "pci"
    path: Path  # what is opened to reach it
    usable: bool  # whether this process may write to it


def is_compiled(data: bytes) -> bool:
    """Tells whether a model is compiled for the Edge TPU, so that nothing else can run it."""
    return CUSTOM_OPERATOR in data


def devices(root: Path = Path("/")) -> list[Device]:
    """Lists the Edge TPUs that Linux sees, USB sticks first; elsewhere none are found."""
    nodes = []
    for entry in sorted(root.glob("sys/bus/usb/devices/*")):
        identity = tuple(_line(entry / name) for name in ("idVendor", "idProduct"))
        if identity in _USB:
            bus, number = (_line(entry / name).zfill(3) for name in ("busnum", "devnum"))
            nodes.append(("usb", root / "dev/bus/usb" / bus / number))
    nodes += [("pci", path) for path in sorted(root.glob("dev/apex_*"))]
    return [Device(kind=kind, path=path, usable=os.access(path, os.R_OK | os.W_OK)) for kind, path in nodes]


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def has_pycoral() -> bool:
    """Tells whether Google's pycoral is installed; another package has the same name."""
    try:
        return importlib.util.find_spec("pycoral.utils.edgetpu") is not None
    except Exception:  # whatever that other package does when it is imported
        return False


def pycoral_interpreter(data: bytes, device: str | None = None) -> Any:
    """Makes TFLite's interpreter by pycoral, which finds library and stick by itself.

    The device is "usb", "pci", ":1", "usb:0" …; None takes the first. Tensors are not yet allocated.

    Raises:
        InputError: If there is no stick, or it cannot be used.
    """
    module = importlib.import_module("pycoral.utils.edgetpu")
    try:
        return module.make_interpreter(data, device=device)
    except (OSError, ValueError, RuntimeError) as error:
        raise explained(error) from error


def delegate(module: Any, device: str | None = None) -> Any:
    """Loads libedgetpu for an interpreter's `experimental_delegates`.

    The module is a runtime with `load_delegate`, as `ai_edge_litert.interpreter`; the device is as for
    `pycoral_interpreter`.

    Raises:
        InputError: If library or stick are missing, or the stick may not be used.
    """
    try:
        loaded = ctypes.CDLL(library())  # which says what is wrong with a library; the runtimes do not
        if not hasattr(loaded, "tflite_plugin_create_delegate"):
            raise OSError(f"{library()} is another library")
        return module.load_delegate(library(), {"device": device} if device else {})
    except (OSError, ValueError, RuntimeError) as error:
        raise explained(error) from error


def library() -> str:
    """Returns the name or path of libedgetpu; the environment variable EDGETPU_LIBRARY has the first word."""
    return os.environ.get(LIBRARY_VARIABLE) or LIBRARIES.get(sys.platform, LIBRARIES["linux"])


def explained(error: Exception, root: Path = Path("/")) -> InputError:
    """Says what is missing: the library, the stick, or the right to use it.

    The error is of a runtime that could not load libedgetpu, which gives no reasons; `root` is of the file
    system. Returns the error to raise.
    """
    cause, seen = first_line(error), devices(root)
    if isinstance(error, OSError) or "cannot open shared" in cause:
        named = f"{LIBRARY_VARIABLE} names it: correct or unset it, or"
        received = f"no such library ({cause})"
        remedy = f"{named if LIBRARY_VARIABLE in os.environ else 'To get it,'} {_INSTALL}."
    elif any(device.usable for device in seen):
        received = f"one that does not answer ({cause})"
        remedy = f"Plug it out and in again; if that does not help, {_INSTALL}, made for your TFLite runtime."
    elif seen:
        group = "plugdev" if seen[0].kind == "usb" else "apex"
        received = f"no permission for {seen[0].path}"
        remedy = f"Run sudo usermod -aG {group} $USER, log in again, and plug it out and in again."
    elif sys.platform.startswith("linux"):
        received = "none plugged in"
        remedy = "Plug it in, at best into a blue (USB 3) port; see lsusb."
    else:
        received = f"no answer ({cause})"
        remedy = f"Plug it in again; if that does not help, {_INSTALL}."
    return problem(f"an Edge TPU, through {library()}", received, remedy)
