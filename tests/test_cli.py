"""The command line: every verb, and one clear line for every wrong input."""

import argparse
import importlib.util
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from kp2d import arguments, cli, images


@pytest.fixture(autouse=True)
def _own_home(home):
    """Nothing that a command keeps by itself may land in the checkout."""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "--method", "sfit"], "Did you mean 'sift'?"),
        (["evaluate", "--precision", "int4"], "precision of kp2d_tiny_s"),
        (["evaluate", "--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["evaluate", "--profile", "fats"], "fast"),
        (["evaluate", "--protocol", "kp2dtyni"], "kp2dtiny"),
        (["evaluate", "--top-k", "2"], "top_k"),
        (["evaluate", "--score-threshold", "1.5"], "score_threshold"),
        (["reproduce", "--profile", "fsat"], "Did you mean 'fast'?"),
        (["reproduce", "--stages", "05,99"], "stage"),
        (["reproduce", "-p", "topk=3"], "Did you mean 'top_k'?"),
        (["reproduce", "-p", "06.methods=[]"], "parameter of 06_compare_sift"),
        (["reproduce", "-p", "top_k"], "NAME=VALUE"),
        (["reproduce", "--stages", "01", "-p", "05.top_k=[300]"], "stage that runs, for 05.top_k"),
        (["match", "/nowhere/a.png", "/nowhere/b.png"], "/nowhere/a.png"),
        (["download", "hpatchs"], "Did you mean 'hpatches'?"),
        (["prepare", "--profile", "slow"], "profile"),
        (["match", "/nowhere/a*.png", "/nowhere/b.png"], "a folder or pattern with pictures"),
        (["evaluate", "--method", "SIFT"], "Did you mean 'sift'?"),
        (["evaluate", "--output", "t.csv", "--pairs", "t.csv"], "different files for --output"),
        (["evaluate", "--output", "photo.png"], "suffix of a table out of .csv"),
        (["sweep", "--method", "orb", "--output", "t.txt"], "suffix of a table out of .csv"),
        (["evaluate", "--score-threshold", "-1"], "score_threshold"),
        (["reproduce", "--timeout", "0"], "at least 1 s"),
    ],
)
def test_wrong_input_is_one_clear_line(arguments, words, command):
    code, _, err = command(*arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["lint", "{}"],
        ["compile", "{}", "-o", "never_edgetpu.tflite"],
        ["quantize", "{}", "-o", "never.tflite"],
        ["evaluate", "--method", "{}"],
        ["demo", "nowhere.mp4", "--method", "{}"],
        ["match", "README.md", "README.md", "-o", "never.csv", "--method", "{}"],
        ["bench", "latency", "--preset", "{}"],
        ["sweep", "--preset", "{}"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("given", ["kp2d_tiny_s:INT8", "kp2d_tiny_s:int4"])
def test_every_verb_takes_a_precision_and_names_the_right_one(words, given, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("a file")
    code, _, err = command(*(word.format(given) for word in words))
    assert code == 2 and "precision" in err and given.partition(":")[2] in err, err
    assert "Did you mean 'int8" in err or given.endswith("4")
    assert not list(tmp_path.glob("never*"))


def test_wrong_image_size_is_explained_by_the_parser(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", "--image-size", "240"])
    assert "240x320" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("match", "DATA/v_a/1.png", "DATA/v_a/2.png", "--method", "kp2d_tiny_s:int8", "-o", "OUT/o.png"),
        ("extract", "DATA", "--method", "kp2d_nano:int8", "-o", "OUT/o.npz"),
        ("evaluate", "--method", "kp2d_nano:int8", "--data", "DATA"),
        ("demo", "DATA/v_a", "--method", "kp2d_nano:int8", "--headless"),
        ("quantize", "kp2d_nano", "-o", "OUT/o.tflite"),
        ("compile", "kp2d_nano", "-o", "OUT/o_edgetpu.tflite"),
        ("sweep", "--preset", "kp2d_nano", "--precision", "int8", "--data", "DATA", "-o", "OUT/o.csv"),
        ("train", "--data", "DATA", "--preset", "kp2d_nano", "-o", "OUT/run", "--disable-wandb"),
    ],
    ids=lambda words: words[0],
)
def test_a_size_off_the_cells_names_the_option_and_the_nearest_sizes(words, tiny_dataset, tmp_path, command):
    words = [word.replace("DATA", str(tiny_dataset)).replace("OUT", str(tmp_path / "out")) for word in words]
    code, _, err = command(*words, "--image-size", "98x134")
    assert code == 2 and "divisible by the cell 4; received 98x134" in err
    assert "Choose --image-size 96x132 or --image-size 100x136." in err
    assert not [path for path in tmp_path.rglob("out/**/*") if path.is_file()]


@pytest.mark.parametrize(
    ("words", "by"),
    [
        (("match", "DATA/v_a/1.png", "DATA/v_a/2.png", "--method", "orb", "-o", "BAD/o.png"), "--output"),
        (("match", "DATA/v_a/1.png", "DATA/v_a/2.png", "--method", "orb", "-o", "BAD/o.csv"), "--output"),
        (("extract", "DATA", "--method", "orb", "-o", "BAD/o.npz"), "--output"),
        (("evaluate", "--method", "orb", "--data", "DATA", "--pairs", "BAD/p.csv"), "--pairs"),
        (("evaluate", "--method", "orb", "--data", "DATA", "--estimators", "BAD/p.csv"), "--estimators"),
        (("evaluate", "--method", "orb", "--data", "DATA", "--cache", "BAD/cache"), "--cache"),
        (("demo", "DATA/v_a", "--method", "orb", "--headless", "--stats", "BAD/s.csv"), "--stats"),
        (("quantize", "kp2d_nano", "-o", "BAD/o.tflite"), "--output"),
        (("compile", "kp2d_nano", "-o", "BAD/o_edgetpu.tflite"), "--output"),
        (
            ("sweep", "--preset", "kp2d_nano", "--precision", "int8", "--data", "DATA", "-o", "BAD/o.csv"),
            "--output",
        ),
        (("download", "hpatches", "--folder", "BAD/hpatches"), "--folder"),
    ],
)
def test_a_folder_that_cannot_be_written_names_the_option_that_helps(
    words, by, tiny_dataset, tmp_path, command
):
    (tmp_path / "bad").write_text("a file where a folder is wanted")
    words = [word.replace("DATA", str(tiny_dataset)).replace("BAD", str(tmp_path / "bad")) for word in words]
    code, _, err = command(*words)
    assert code == 2 and (f"another folder by {by}." in err or f"another by {by}, or" in err)


@pytest.mark.parametrize(
    ("words", "by"),
    [
        (("evaluate", "--method", "orb", "--data", "DATA"), "--cache"),
        (
            ("sweep", "--preset", "kp2d_nano", "--precision", "int8", "--data", "DATA", "-o", "OUT.csv"),
            "KP2D_HOME",
        ),
        (("prepare", "--profile", "smoke"), "KP2D_HOME"),
        (("download", "hpatches"), "KP2D_HOME"),
    ],
)
def test_a_project_that_cannot_be_written_names_what_helps(
    words, by, tiny_dataset, tmp_path, command, monkeypatch
):
    (tmp_path / "bad").write_text("a file where a folder is wanted")
    monkeypatch.setenv("KP2D_HOME", str(tmp_path / "bad"))
    words = [word.replace("DATA", str(tiny_dataset)).replace("OUT", str(tmp_path / "out")) for word in words]
    code, _, err = command(*words)
    assert code == 2 and f" by {by}" in err


def parsers(parser=None):
    """Every parser of the command line with its words: the program's, its verbs' and theirs."""
    parser = parser or cli.parser_for(cli.VERBS)
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def verbs():
    return [parser for parser in parsers() if parser.prog != "kp2d"]


@pytest.mark.parametrize("parser", verbs(), ids=lambda parser: parser.prog)
def test_every_verb_explains_itself(parser, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([*parser.prog.split()[1:], "--help"])
    told = capsys.readouterr().out
    assert f"usage: {parser.prog}" in told
    assert parser.description and parser.description[0].isupper() and parser.description.endswith(".")
    assert "example: kp2d " in told and "==SUPPRESS==" not in told
    for nothing in ("(default: None)", "(default: [])", "(default: False)", "(default: )"):
        assert nothing not in told


@pytest.mark.parametrize("parser", list(parsers()), ids=lambda parser: parser.prog)
def test_every_argument_has_help(parser):
    for action in parser._actions:
        assert action.help and len(action.help.strip()) > 3, action


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_example_is_one_that_the_parser_takes(verb):
    words = cli.VERBS[verb].example.split()
    assert words[:2] == ["kp2d", verb]
    assert cli.parser_for(words).parse_args(words[1:]).verb == verb


@pytest.mark.parametrize(
    ("words", "rooms"),
    [(["--version"], set()), (["--help"], set()), (["lint", "--help"], {"device", "methods"})],
)
def test_a_verb_opens_only_the_rooms_that_it_needs(words, rooms):
    code = (
        "import contextlib, sys\nfrom kp2d import cli\n"
        f"with contextlib.suppress(SystemExit):\n    cli.main({words!r})\n"
        "print('modules', *(name for name in sys.modules if name.startswith('kp2d.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    modules = done.stdout.splitlines()[-1].split()[1:]
    assert {name.split(".")[1] for name in modules if name.count(".") > 1} == rooms


def test_no_verb_prints_the_help(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert "usage: kp2d" in out and all(verb in out for verb in cli.VERBS)


@pytest.mark.parametrize("error", [MemoryError(), cv2.error("Failed to allocate 67108864 bytes")])
def test_a_lack_of_memory_is_one_clear_line(monkeypatch, tiny_dataset, error, command):
    if isinstance(error, cv2.error):
        error.code = cv2.Error.StsNoMem

    def exhaust(*_, **__):
        raise error

    monkeypatch.setattr("kp2d.evaluate.evaluation.evaluate", exhaust)
    code, _, err = command("evaluate", "--data", tiny_dataset)
    assert (code, "a lack of memory" in err, "smaller --image-size" in err) == (2, True, True)


@pytest.mark.parametrize(
    ("limit", "warned"), [(0.5, True), (1.1, True), (3.9, True), (8.0, False), (None, False)]
)
def test_a_small_limit_of_memory_is_told_before_the_work(limit, warned, monkeypatch, command, tmp_path):
    monkeypatch.setattr(cli, "_limit", lambda: limit)
    _, _, err = command("train", "--data", tmp_path / "none", "-o", tmp_path / "run")
    assert (f"ulimit -v allows {limit} GiB" in err) == warned
    monkeypatch.setattr("kp2d.train.cli.run_train", lambda _: bytearray(2**62))
    code, _, err = command("train", "--data", tmp_path, "-o", tmp_path / "run")
    assert code == 2 and "a lack of memory" in err and "--image-size or --batch-size" in err
    assert (f"ulimit -v allows {limit} GiB." in err) == (limit is not None)


@pytest.mark.parametrize(
    ("backend", "said"), [("foo", "a backend of Keras out of tensorflow"), ("torch", "the package torch")]
)
def test_a_wrong_backend_is_one_clear_line(tmp_path, backend, said):
    if backend == "torch" and importlib.util.find_spec("torch"):
        pytest.skip("torch is installed")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    pair = [str(tmp_path / "a.png")] * 2
    command = [sys.executable, "-m", "kp2d", "match", *pair, "--method", "kp2d_tiny_s:float32"]
    command += ["-o", str(tmp_path / "m.csv")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "KERAS_BACKEND": backend}
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("kp2d match: error: expected ") and said in done.stderr


def test_settings_of_the_library_become_options_of_a_verb_that_has_them():
    options = cli.parser_for(["match"]).parse_args(["match", "a", "b"])
    said = "`precision='int8'`, `image_size=(88, 96)`, no `use_tpu=True`, `top_k`, `steps=3`, `kp2d -v`"
    expected = "--precision int8, --image-size 88x96, no --use-tpu, --top-k, `steps=3`, `kp2d -v`"
    assert arguments.with_flags(said, options) == expected


def test_interruption_says_that_work_is_kept(monkeypatch, tiny_dataset, command):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kp2d.evaluate.evaluation.evaluate", interrupt)
    code, _, err = command("evaluate", "--data", tiny_dataset)
    assert (code, "kept" in err) == (130, True)


def test_a_missing_package_is_one_clear_line(tmp_path):
    arguments = ["quantize", "kp2d_tiny_s.weights.h5", "-o", str(tmp_path / "x.tflite")]
    code = f"import sys; sys.modules['keras'] = None; from kp2d import cli; sys.exit(cli.main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "the package keras, which this command needs" in done.stderr and "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def run_kp2d(*arguments, folder, **environment):
    """Runs `python -m kp2d` in a folder, its output as bytes."""
    root = os.fspath(importlib.util.find_spec("kp2d").submodule_search_locations[0] + "/..")
    environment = {**os.environ, "PYTHONPATH": root, **environment}
    command = [sys.executable, "-m", "kp2d", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=200, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("words", [("train", "--help"), ("doctor",), ("evaluate", "--method", "sıft✓")])
def test_every_terminal_takes_our_signs(words, encoding, tmp_path):
    run = run_kp2d(*words, folder=tmp_path, PYTHONIOENCODING=encoding, KP2D_HOME=str(tmp_path))
    assert b"Traceback" not in run.stderr and b"UnicodeEncodeError" not in run.stderr, run.stderr
    assert (run.stdout or run.stderr).decode(encoding)


def test_a_name_that_is_no_utf8_is_written_and_printed(tmp_path):
    name = os.fsdecode(b"v_caf\xe9")
    run = run_kp2d("match", f"{name}.png", f"{name}.png", folder=tmp_path, PYTHONIOENCODING="utf-8")
    assert run.returncode == 2 and rb"v_caf\udce9" in run.stderr


@pytest.mark.parametrize("name", ["random", "tempfile", "json", "numpy", "kp2d_more"])
def test_a_file_of_the_working_folder_is_no_module(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    run = run_kp2d("match", "a.png", "b.png", folder=tmp_path, MPLBACKEND="module://gone")
    assert b"shadowed" not in run.stderr and b"a.png" in run.stderr, run.stderr


@pytest.mark.parametrize(
    "words",
    [
        "match {0} -o {0}/m.png",
        "match {0}/a.png {0} -o {0}/",
        "match {0}/a.png {0}/*.png -o {0}/m.png",
        "demo {0} -o {0}/film.mp4 --headless",
        "train --data {0} -o {0} --disable-wandb",
        "train --data {0} -o {0}/runs/mine --disable-wandb",
        "train --data {1} --validation {0} -o {0}/run --disable-wandb",
        "quantize kp2d_nano -o {0}/mine.tflite --data {0}",
    ],
)
def test_no_verb_writes_where_it_searches_pictures(words, tmp_path, textured, command):
    """The next run would take what is written for photographs."""
    photos = tmp_path / "photos"
    for name in ("a", "b"):
        images.write_image(photos / f"{name}.png", textured((64, 64)))
    code, _, err = command(*words.format(photos, tmp_path / "others").split())
    assert code == 2 and f"outside of {photos}, where pictures are searched" in err, err
    assert "Choose another --output" in err
    assert sorted(path.name for path in photos.rglob("*")) == ["a.png", "b.png"]
