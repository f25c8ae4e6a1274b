"""kp2d quantize from end to end: every kind of file, training on the grid, cards, and what is refused."""

import pytest
from small_network import SMALL, SMALL_CORAL, random_pixels, small_model

from kp2d import cli, files
from kp2d.checks import InputError
from kp2d.data import datasets
from kp2d.methods import learned, tflite_file
from kp2d.methods.weights import PRETRAINED
from kp2d.quantize import flatbuffer


@pytest.fixture(scope="module")
def small():
    return small_model(SMALL)


def test_quantize_makes_every_kind_of_file(small_preset, small, tmp_path, photos, capsys):
    weights = tmp_path / f"{small_preset}.weights.h5"
    small.network.save_weights(weights)
    outputs = [tmp_path / f"out.{suffix}" for suffix in ("tflite", "h", "onnx")]
    common = ["--precision", "int8_ptq", "--image-size", "48x64", "--calibration", str(photos)]
    assert cli.main(["quantize", str(weights), "-o", *map(str, outputs), *common]) == 0
    said = capsys.readouterr().out
    assert "int8_ptq 48x64" in said and "CONV_2D v3 ×16" in said
    assert all(path.stat().st_size > 1000 for path in outputs)
    changed = tmp_path / "changed.tflite"
    assert (
        cli.main(
            ["quantize", str(outputs[0]), "-o", str(changed), "--image-size", "24x32", "--input", "uint8"]
        )
        == 0
    )
    assert tflite_file.open_model(changed)[1]["image_size"] == [24, 32]
    assert "QUANTIZE v1 ×1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kp2d_tiny_x", "-o", "x.tflite"], "shipped network"),
        (["kp2d_tiny_s", "-o", "x.bin"], "suffix of an output out of .tflite, .h, .onnx"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--precision", "int8_ptq", "--calibration", "nowhere"], "nowhere"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--precision", "int8_ptq", "--calibration", "."], "pictures"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--image-size", "241x320"], "divisible by the cell 4"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--precision", "float16", "--input", "uint8"], "--input uint8"),
        (["nowhere.weights.h5", "-o", "x.tflite"], "nowhere.weights.h5"),
        (["nowhere.tflite", "-o", "x.tflite"], "No such file"),
        (["kp2d_tiny_s", "-o", "x.tflite", "x.tflite"], "different outputs"),
        (["x.tflite", "-o", "./x.tflite"], "an --output other than what is read"),
        (
            ["kp2d_tiny_s", "-o", "x.tflite", "--steps", "5", "--set", "bogus=1"],
            "no --steps, --set for a shipped",
        ),
        (["kp2d_tiny_s", "-o", "x.onnx", "--precision", "int8"], "no --precision for an ONNX file"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--precision", "float16", "--data", "d"], "no --data for float16"),
    ],
)
def test_quantize_says_what_is_wrong(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["quantize", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.tflite").exists()


def test_training_on_the_grid_brings_the_network_nearer(small_preset, small, tmp_path, photos, eager, capsys):
    weights = tmp_path / f"{small_preset}.weights.h5"
    small.network.save_weights(weights)
    output = tmp_path / "int8.tflite"
    settings = ["batch_size=2", "workers=0", "image_size=(32,48)", "log_every=1", "tensorboard=False"]
    changes = [word for setting in settings for word in ("--set", setting)]
    command = ["quantize", str(weights), "-o", str(output), "--data", str(photos), "--image-size", "48x64"]
    assert cli.main([*command, "--steps", "3", *changes, "--card"]) == 0
    assert tflite_file.open_model(output)[1]["precision"] == "int8"
    (run,) = [path for path in (tmp_path / "int8_training").iterdir() if path.is_dir()]
    assert files.read_json(run / "config.json")["quantized"] is True
    (stage,) = files.read_json(tmp_path / "int8.json")["stages"]
    assert (stage["steps"], stage["recipe"], stage["data"]) == (3, "kp2d_int8", photos.name)
    with pytest.raises(InputError, match="weights in training for int8"):
        learned.load(run)
    assert cli.main(["quantize", str(weights), "-o", str(output), "--precision", "int8"]) == 2
    assert "--data PHOTOGRAPHS" in capsys.readouterr().err
    assert len(datasets.list_images(photos)) == 4


@pytest.mark.usefixtures("eager")
def test_it_is_trained_and_quantized_from_the_command_line(photos, small_preset, tmp_path, capsys):
    folder, size = tmp_path / "run", ["--image-size", "32x48"]
    settings = ["batch_size=2", "workers=0", "log_every=1", "tensorboard=False"]
    changes = [word for setting in settings for word in ("--set", setting)]
    train = [
        "train",
        "--data",
        str(photos),
        "--output",
        str(folder),
        "--preset",
        small_preset,
        *size,
        *changes,
    ]
    assert cli.main([*train, "--to-coral", "--steps", "2", "--disable-wandb"]) == 0
    weights = folder / f"{SMALL_CORAL.name}.weights.h5"
    assert capsys.readouterr().out.splitlines()[-1] == str(weights)
    assert files.read_json(folder / "config.json")["preset"] == SMALL_CORAL.name
    assert cli.main([*train, "--steps", "2", "--disable-wandb"]) == 2  # without the option, another run
    assert "preset" in capsys.readouterr().err
    assert len(learned.load(folder).extract(random_pixels()[0])) > 0
    model = tmp_path / "int8.tflite"
    quantize = ["quantize", str(folder), "-o", str(model), "--data", str(photos), "--image-size", "48x64"]
    quantize += ["--num-images", "1"]
    assert cli.main([*quantize, "--steps", "1", *changes, "--set", "image_size=(32,48)"]) == 0
    assert flatbuffer.describe(model)["operators"]["RESIZE_NEAREST_NEIGHBOR v2"] == 1
    about = tflite_file.open_model(model)[1]
    assert (about["preset"], about["precision"]) == (SMALL_CORAL.name, "int8")


# Cards.


def test_a_shipped_model_of_another_size_has_a_card(tmp_path, capsys):
    output = tmp_path / "x.tflite"
    command = ["quantize", "kp2d_tiny_s", "-o", str(output), "--card"]
    assert cli.main([*command, "--image-size", "88x88"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "x.json")
    card = files.read_json(tmp_path / "x.json")
    shipped = files.read_json(PRETRAINED / "kp2d_tiny_s.int8.json")
    assert card.keys() == shipped.keys()
    assert card["sha256"] == files.sha256(output) != shipped["sha256"] and card["image_size"] == [88, 88]
    kept = ("calibration", "stages", "float_sha256", "name", "preset", "precision")
    assert [card[name] for name in kept] == [shipped[name] for name in kept]
    assert shipped["metrics"] and card["metrics"] == []  # measured with another file
    assert learned.load(output).calibration == shipped["calibration"]
    assert cli.main(command) == 0  # the very same file, and over its own card
    assert files.read_json(tmp_path / "x.json")["metrics"] == shipped["metrics"]


def test_a_model_made_here_has_a_card(small_preset, small, tmp_path, photos, capsys):
    weights = tmp_path / f"{small_preset}.weights.h5"
    small.network.save_weights(weights)
    output = tmp_path / "mine.tflite"
    command = ["quantize", str(weights), "-o", str(output), "--image-size", "48x64", "--card"]
    quantized = ["--precision", "int8_ptq", "--calibration", str(photos), "--num-images", "3"]
    assert cli.main([*command, *quantized]) == 0
    card = files.read_json(tmp_path / "mine.json")
    assert card["calibration"] == "3 of 4 photographs of photos at 64×48"
    assert (card["stages"], card["float_sha256"]) == ([], files.sha256(weights))
    assert learned.load(output).calibration == card["calibration"]
    (tmp_path / "mine.json").unlink()
    assert learned.load(output).calibration == "3 images"  # as the file itself says
    smaller = ["quantize", str(output), "-o", str(tmp_path / "s.tflite"), "--image-size", "24x32", "--card"]
    assert cli.main(smaller) == 0
    assert files.read_json(tmp_path / "s.json")["calibration"] == "3 images"
    assert cli.main([*command, "--precision", "float16"]) == 0
    assert files.read_json(tmp_path / "mine.json")["calibration"] == "none"
    assert learned.load(output).calibration == "none"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("output", "said"),
    [("x.onnx", "a .tflite output for --card"), ("mine.tflite", "no card of a model, which would be over")],
)
def test_a_card_is_refused_where_there_is_none_to_write(output, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files.write_json(tmp_path / "mine.json", {"name": "mine", "sha256": "of float weights"})
    assert cli.main(["quantize", "kp2d_tiny_s", "-o", output, "--card"]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
