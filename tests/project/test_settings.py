"""The user's own files of settings, in a process of their own: no table and no picture changes by a byte."""

import json
import os
import subprocess
import sys

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from kp2d import images

# What a user does; each file that comes out of it is compared.
SESSION = """
import sys
from kp2d import cli, config
from kp2d.data import datasets
out, data = sys.argv[1:]
pair = datasets.load_sequences(data)[0].pairs[0]
small = ("--method", "kp2d_nano:float32", "--image-size", "96x128")
outputs = (f"-o{out}/m.{kind}" for kind in ("png", "svg", "csv"))
match = ("match", str(pair.path0), str(pair.path1), *small, *outputs)
tables = ("--output", f"{out}/rows.csv", "--pairs", f"{out}/pairs.csv", "--cache", f"{out}/cache")
evaluate = ("evaluate", "--data", data, "--top-k", "50", "--orders", "0", *small, *tables)
assert cli.main(match) == cli.main(evaluate) == 0
from kp2d.viz import figures, showcase
rules = config.protocol(image_size=(96, 128), top_k=(50,))
figures.save_figure(showcase.draw_methods(pair, ["orb", "kp2d_nano"], rules, top_k=50), f"{out}/methods.png")
import keras, matplotlib
print(keras.config.floatx(), matplotlib.rcParams["font.size"])
"""
# Values as people write them; a key of Matplotlib's gets one that it takes.
WORDS = (
    *("True", "False", "none", "auto", "lower", "upper", "center", "right", "tight", "constrained", "bold"),
    *("italic", "serif", "monospace", "cm", "stix", "red", "0.3", "dashed", ":", "o", "gray", "nearest"),
    *(
        "bilinear",
        "antialiased",
        "both",
        "major",
        "out",
        "inout",
        "bottom",
        "path",
        "2",
        "3, 7",
        "0.05",
        "17.5",
    ),
)


def matplotlibrc(rng):
    """Returns a random valid `matplotlibrc` of every key that a value in `WORDS` suits, but of a few."""
    lines = []
    for key, suits in mpl.rcsetup._validators.items():
        if key.startswith(("backend", "webagg", "datapath", "savefig.directory")) or rng.random() < 0.3:
            continue
        for word in map(str, rng.permutation(WORDS)):
            try:
                suits(word)
            except (ValueError, TypeError, RuntimeError, Warning):
                continue
            lines.append(f"{key}: {word}")
            break
    return "\n".join(["font.size: 23", *(line for line in lines if not line.startswith("font.size:")), ""])


def keras_json(rng):
    """Returns a random valid `keras.json`."""
    settings = {
        "floatx": str(rng.choice(["float16", "float64"])),
        "image_data_format": "channels_first",
        "epsilon": float(10.0 ** -rng.integers(1, 9)),
        "backend": "tensorflow",
    }
    return json.dumps(settings)


def run(folder, data, **environment):
    """Runs the session in a folder; returns the bytes of what it wrote, and what it printed last."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "MATPLOT"))}
    known |= {"KP2D_HOME": str(folder / "home"), "HOME": str(folder), "OMP_NUM_THREADS": "1", **environment}
    words = [sys.executable, "-c", SESSION, str(folder / "out"), str(data)]
    done = subprocess.run(words, cwd=folder, env=known, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    files = {path.name: path.read_bytes() for path in (folder / "out").iterdir() if path.is_file()}
    return files, done.stdout.splitlines()[-1].split()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, textured):
    """A data set of one pair."""
    root = tmp_path_factory.mktemp("settings") / "made"
    image, shift = textured((96, 128)), np.array([[1, 0.02, 5], [-0.02, 1, 3.0], [0, 0, 1]])
    images.write_image(root / "v_a" / "1.png", image)
    images.write_image(root / "v_a" / "2.png", cv2.warpPerspective(image, shift, (128, 96)))
    np.savetxt(root / "v_a" / "H_1_2", shift)
    return root


@pytest.fixture(scope="module")
def usual(tmp_path_factory, pictures):
    """What the session writes without any settings."""
    written, (floatx, size) = run(tmp_path_factory.mktemp("usual"), pictures)
    assert (floatx, size) == ("float32", "10.0")
    assert set(written) == {"m.png", "m.svg", "m.csv", "rows.csv", "pairs.csv", "methods.png"}
    return written


PLACES = {  # of the two files, and the variables that name them
    "the home": ("{}/.keras/keras.json", "{}/.config/matplotlib/matplotlibrc", {}),
    "the working folder": ("{}/.keras/keras.json", "{}/matplotlibrc", {"MPLBACKEND": "Qt4Agg"}),
    "variables": ("{}/k/keras.json", "{}/m/my.rc", {"KERAS_HOME": "{}/k", "MATPLOTLIBRC": "{}/m/my.rc"}),
}


@pytest.mark.parametrize(("seed", "place"), list(enumerate(PLACES)))
def test_random_valid_settings_change_no_table_and_no_picture(seed, place, tmp_path, pictures, usual):
    rng = np.random.default_rng(seed)
    keras_file, style_file, variables = PLACES[place]
    for name, content in ((keras_file, keras_json(rng)), (style_file, matplotlibrc(rng))):
        path = type(tmp_path)(name.format(tmp_path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    named = {name: value.format(tmp_path) for name, value in variables.items()}
    written, (floatx, size) = run(tmp_path, pictures, **named)
    assert floatx in ("float16", "float64") and float(size) == 23, "they were read, and stay the user's"
    for name, content in usual.items():
        assert written[name] == content, f"{name} differs; see {tmp_path}"
