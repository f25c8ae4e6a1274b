"""Owns what the page "Try it" computes with: LiteRT.js from npm, int8 networks and samples, all as scripts.

A page that was opened as a file may fetch nothing, so everything it needs is a script, loaded when it is
needed: the same site works from a folder and from any server.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import __version__, checks, files, images, paths
from kp2d.data import samples, scenes
from kp2d.methods import registration, tflite_file, weights
from kp2d.methods.decode import dequantize, sharpen

ASSETS = paths.PACKAGE / "report" / "assets" / "try"
FOLDER = "try"  # in the site
NETWORKS = ("kp2d_tiny_s", "kp2d_nano")
SAMPLES = ("china", "coffee", "astronaut")
# Of the page and of its worker, in the order in which they need each other.
SCRIPTS = ("tensor.js", "picture.js", "homography.js", "draw.js", "camera.js", "engine.js", "page.js")
PROGRAM = ("tensor.js", "picture.js", "decode.js", "match.js", "homography.js", "worker.js")
# LiteRT.js' builds, and what they are called in the site: the first is faster and needs relaxed SIMD.
BUILDS = {"litert": "litert_wasm_internal", "litert_compat": "litert_wasm_compat_internal"}
PACKAGE = "node_modules/@litertjs/core"
LEVELS = np.arange(-128, 128, dtype=np.int8)
_TENSORS, _BUFFERS, _SUBGRAPHS = 0, 4, 2  # fields of the tables SubGraph and Model
_SHAPE, _BUFFER, _NAME, _QUANTIZATION = 0, 2, 3, 4  # fields of the table Tensor
_SAMPLE_SIZE = (360, 480)
_THUMBNAIL = (108, 288)  # both pictures, at twice the size that it has on the page
_SECONDS = 300  # for npm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What the page can do."""

    litert: str = ""  # version of LiteRT.js; "" if there is none, and then the page only says why
    missing: checks.InputError | None = None  # why there is none, and what to do
    # of each its name, size in words, and whether its descriptors are steered
    networks: tuple[dict[str, Any], ...] = ()
    # of each its name, title, author, licence with its address, and picture in the site
    samples: tuple[dict[str, str], ...] = ()
    scripts: tuple[str, ...] = SCRIPTS  # files in the folder of the page that it loads at once

    @property
    def settings(self) -> dict[str, Any]:
        """What the page's scripts read."""
        return {
            "version": __version__,
            "litert": self.litert,
            "threshold": registration.THRESHOLD,
            "texture": {"window": registration.CONTRAST_WINDOW, "contrast": registration.MIN_CONTRAST},
            "networks": self.networks,
            "samples": [{name: sample[name] for name in ("name", "title")} for sample in self.samples],
        }


def write_trial(site: Path) -> Trial:
    """Writes all that the page needs but itself; returns what it can do, a note without LiteRT.js."""
    try:
        package = fetch_litert(paths.data() / "npm")
    except checks.InputError as error:
        return Trial(missing=error)
    folder = site / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*SCRIPTS, "LICENSE-LiteRT.txt"):
        shutil.copyfile(ASSETS / name, folder / name)
    program = "".join((ASSETS / name).read_text(encoding="utf-8") for name in PROGRAM)
    _write_script(folder / "worker.js", "programs", "worker", program)
    for name, build in BUILDS.items():
        script = (package / "wasm" / f"{build}.js").read_text(encoding="utf-8")
        wasm = _packed((package / "wasm" / f"{build}.wasm").read_bytes())
        _write_script(folder / f"{name}.js", "litert", name, {"script": script, "wasm": wasm})
    return Trial(
        litert=json.loads((package / "package.json").read_text(encoding="utf-8"))["version"],
        networks=tuple(_write_network(folder, name) for name in NETWORKS),
        samples=_write_samples(folder),
    )


def fetch_litert(folder: Path) -> Path:
    """Installs LiteRT.js as the lock file says, unless it is there already, and returns the package's folder.

    Raises:
        InputError: If there is no npm, or it cannot install.
    """
    lock = (ASSETS / "package-lock.json").read_text(encoding="utf-8")
    package, done = folder / PACKAGE, folder / "package-lock.json"
    if done.is_file() and done.read_text(encoding="utf-8") == lock and (folder / "whole").is_file():
        return package
    npm = shutil.which("npm")
    if npm is None:
        remedy = "Install Node.js 18 or newer, which brings it, and make the report again."
        raise checks.problem("npm, which fetches LiteRT.js for the page Try it", "none", remedy)
    (folder / "whole").unlink(missing_ok=True)
    for name in ("package.json", "package-lock.json"):
        files.write_bytes(folder / name, (ASSETS / name).read_bytes())
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
        failure = _reason(run.stderr) if run.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    missing = [build for build in BUILDS.values() if not (package / "wasm" / f"{build}.wasm").is_file()]
    if failure or missing:
        raise checks.problem(
            "LiteRT.js from npm's registry, for the page Try it",
            failure or f"a package without {missing[0]}.wasm",
            "Check the network and npm's settings (npm ping), and make the report again.",
        )
    files.write_text(folder / "whole", "")
    return package


def _reason(told: str) -> str:
    """Returns what npm says went wrong; the first of its lines "npm error …" has a code only."""
    lines = [line.removeprefix("npm error").removeprefix("npm ERR!").strip() for line in told.splitlines()]
    reasons = [line for line in lines if line and not line.startswith("A complete log")]
    return " ".join(reasons[:2]).rstrip(".") or "a failure"


def _write_network(folder: Path, name: str) -> dict[str, Any]:
    """Writes the script of a shipped int8 network, and returns its entry on the page."""
    found = weights.resolve(name, "int8")
    data, metadata = tflite_file.open_model(found.path)
    network = {
        "name": name,
        "steered": found.steered,
        **_network(data, metadata),
        "data": _base64(data),
    }
    _write_script(folder / f"{name}.js", "networks", name, network)
    size = f"{len(data) / 1e6:.2f} MB"
    return {"name": name, "size": size, "steered": found.steered}


def _network(data: bytes, metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns what JavaScript cannot ask LiteRT.js for: quantization, and where shapes stand in the file."""
    model = tflite_file.root(data)
    height = metadata["image_size"][0]
    empty = {index for index, buffer in enumerate(model.tables(_BUFFERS)) if not buffer.size(0)}
    shapes, quantized = [], {}
    for graph in model.tables(_SUBGRAPHS):
        for tensor in graph.tables(_TENSORS):
            shape = tensor.numbers(_SHAPE, "i")
            if tensor.scalar(_BUFFER, "I") not in empty or len(shape) != 4:
                continue  # weights
            shapes.append((tensor.target(_SHAPE) + 8, height // shape[1]))  # behind its length and the batch
            grid = tensor.table(_QUANTIZATION)
            (scale,), (zero,) = grid.numbers(2, "f"), grid.numbers(3, "q")
            quantized[tensor.bytes(_NAME).decode()] = {"scale": scale, "zero": zero}
    score = quantized["score"]
    # sharpen() makes equal numbers of unequal levels: taken from here, scores tie as they do in Python.
    scores = sharpen(dequantize(LEVELS, score["scale"], score["zero"]), metadata["score_sharpness"])
    return {
        "cell": metadata["cell"],
        "dim": metadata["descriptor_dim"],
        "shapes": shapes,
        "scores": scores.astype(np.float32).tolist(),
        "offset": quantized["offset"],
        "descriptor": quantized["descriptor"],
    }


def _write_samples(folder: Path) -> tuple[dict[str, str], ...]:
    """Writes pairs of pictures that may be shown; none if a package that holds photographs is missing."""
    by_name = {scene.name: scene for scene in scenes.SCENES}
    with tempfile.TemporaryDirectory() as made:
        try:
            samples.prepare_samples(
                Path(made), scenes=SAMPLES, num_images=3, image_size=_SAMPLE_SIZE, progress=False
            )
        except checks.InputError:
            return ()
        return tuple(_write_sample(folder, Path(made) / f"v_{name}", by_name[name]) for name in SAMPLES)


def _write_sample(folder: Path, sequence: Path, scene: scenes.Scene) -> dict[str, str]:
    near, far = 3, 1  # the first picture is to be found in the second
    pair = [images.read_image(sequence / f"{number}.png") for number in (near, far)]
    encoded = []
    for image in pair:
        target = folder / "encoded.jpg"
        encoded.append(_base64(images.write_image(target, image).read_bytes()))
        target.unlink()
    _write_script(folder / f"sample_{scene.name}.js", "samples", scene.name, encoded)
    height, width = _THUMBNAIL
    half = (height, width // 2)
    small = np.hstack([images.resize_image(image, half) for image in pair])
    images.write_image(folder / f"sample_{scene.name}.jpg", small)
    return {
        "name": scene.name,
        "title": scene.title.partition(",")[0],
        "author": scene.author,
        "licence": scene.licence,
        "licence_url": scene.licence_url,
        "thumbnail": f"{FOLDER}/sample_{scene.name}.jpg",
    }


def _write_script(path: Path, table: str, name: str, value: Any) -> None:
    """Writes a script that puts a value into a table of the page's."""
    content = json.dumps(value, separators=(",", ":"), allow_nan=False)
    files.write_text(path, f'((globalThis.kp2d ??= {{}}).{table} ??= {{}})["{name}"] = {content};\n')


def _packed(content: bytes) -> str:
    """Returns bytes as base64 of gzip, which repeats to the byte."""
    return _base64(gzip.compress(content, mtime=0))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
