"""Parameters of notebooks: every usual form of each kind works, and what is none is refused with the form."""

import re

import pytest

from kp2d import checks
from kp2d.reproduce import chain, notebook, parameters, pipeline, settings
from kp2d.reproduce.parameters import PARAMETERS, read

DECLARED = {
    (stage.number, name): value
    for stage in chain.STAGES
    for name, value in chain.parameters(stage.notebook).items()
}


@pytest.mark.parametrize(("number", "name"), DECLARED)
def test_every_parameter_is_known_and_its_default_is_what_notebooks_take(number, name):
    assert name in PARAMETERS
    default = DECLARED[number, name]
    assert read(name, default) == default and type(read(name, default)) is type(default)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_form_that_an_error_shows_is_one_that_works(name):
    value = read(name, PARAMETERS[name].form)
    assert read(name, value) == value


FORMS = {
    "top_k": [
        ([300], [300, "300", "[300]", [300], (300,), "300,", ["300"]]),
        ([300, 1000], [[300, 1000], "300,1000", "[300, 1000]", "(300, 1000)", "300; 1000", ["300", "1000"]]),
        ([], [[], "[]", ()]),
    ],
    "methods": [
        (["sift"], ["sift", '"sift"', "'sift'", "[sift]", '["sift"]', ["sift"], " sift "]),
        (["sift", "orb"], ["sift,orb", "[sift, orb]", "['sift','orb']", '[sift,"orb"]', ("sift", "orb")]),
        (["kp2d_tiny_s:int8", "runs/mine"], ["kp2d_tiny_s:int8,runs/mine", "[kp2d_tiny_s:int8, runs/mine]"]),
        ([], [[], "", "[]"]),
    ],
    "image_size": [
        (
            [240, 320],
            ["240x320", "240X320", "240,320", "[240, 320]", (240, 320), "(240,320)", ["240", "320"]],
        ),
        ([], [[], "", "[]"]),
    ],
    "image_sizes": [
        ([[88, 88]], ["88x88", "[[88, 88]]", [88, 88], "88,88", ["88x88"], "[88x88]", [[88, 88]]]),
        ([[88, 88], [240, 320]], ["88x88,240x320", "[[88,88],[240,320]]", ((88, 88), "240x320")]),
        ([], [[], ""]),
    ],
    "seed": [(7, [7, "7", "007", " 7"])],
    "method": [("sift", ["sift", "'sift'"]), ("", [""])],
    "photographs": [
        ("~/my photographs", ["~/my photographs", "'~/my photographs'"]),
        ("2026", [2026, "2026"]),
    ],
    "interactive": [
        (True, [True, "true", "True", "yes"]),
        (False, ["false", False]),
        ("auto", ["auto", "'auto'"]),
    ],
    "trained": [(True, [True, "true"]), (False, [False, "no"]), ("auto", ["auto"])],
    "recipes": [(["kp2d", "kp2d_plus"], ["kp2d,kp2d_plus", ["kp2d", "kp2d_plus"]])],
    "questions": [
        (["ranges", "score threshold"], ["ranges,score threshold", '["ranges", "score threshold"]'])
    ],
    "networks": [(["kp2d_nano"], ["kp2d_nano", ["kp2d_nano"], "[kp2d_nano]"])],
    "no_parameter": [("any", ["any"])],
}


@pytest.mark.parametrize(
    ("name", "expected", "given"),
    [(name, wanted, form) for name, kinds in FORMS.items() for wanted, forms in kinds for form in forms],
)
def test_every_usual_form_gives_the_same_value(name, expected, given):
    assert read(name, given) == expected and type(read(name, given)) is type(expected)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        *(
            (name, wrong, f"{name}=")
            for name in ("top_k", "threads", "train_steps")
            for wrong in ("abc", 2.5, True)
        ),
        *(
            (name, wrong, f"{name}=8")
            for name in ("seed", "data_seed", "repeats")
            for wrong in ("x", 1.5, -1, [3], None)
        ),
        *(
            (name, wrong, "240x320")
            for name in ("image_size", "train_size")
            for wrong in ("abc", 240, "1x2", [1, 2, 3])
        ),
        ("image_sizes", "88", "88x88"),
        ("top_k", 3, "a whole number in [4"),
        ("methods", "sfit", "Did you mean 'sift'?"),
        ("methods", "sift orb", "methods"),
        ("methods", "kp2d_tiny_x+pyramid2:int8", "Did you mean 'kp2d_tiny_s'?"),
        ("methods", "kp2d_tiny_s+pyramid9:int8", "levels from 1 to 4"),
        ("methods", "kp2d_tiny_s:INT8", "Did you mean 'int8'?"),
        ("methods", "sift:int8", "a precision of sift out of float32"),
        ("methods", "orb+pyramid2", "a network for `pyramid`"),
        ("methods", [["sift"]], "methods=sift,kp2d_tiny_s:int8"),
        ("method", 3, "method=kp2d_tiny_s:int8"),
        ("network", "sift", "shipped network"),
        ("protocol", "kp2dtyni", "Did you mean 'kp2dtiny'?"),
        ("recipes", "kp2d,kp2d+", "recipe"),
        ("preset", "kp2d_small", "preset"),
        ("questions", "rangs", "Did you mean 'ranges'?"),
        ("interactive", "maybe", "interactive=False"),
        ("photographs", ["a"], "photographs=~/photographs"),
    ],
)
def test_what_a_parameter_cannot_be_is_refused_with_the_form_to_write(name, given, said):
    with pytest.raises(checks.InputError) as refused:
        read(name, given)
    assert said in str(refused.value)


def test_a_command_line_is_refused_before_anything_runs(command, home):
    code, out, err = command("reproduce", "--profile", "smoke", "-p", "top_k=abc")
    assert code == 2 and "top_k=300,1000" in err and out == ""
    assert not list(home.glob("results/runs/smoke/*"))


def test_a_stage_gets_the_form_that_its_notebook_takes():
    given = {"methods": "sift,orb", "05.image_size": "96x128", "top_k": 300}
    assigned = pipeline.assign_parameters(chain.select(["05", "06"]), given)
    assert assigned["05_evaluate"] == {"methods": ["sift", "orb"], "image_size": [96, 128], "top_k": [300]}


def test_a_notebook_gets_its_parameters_in_place_and_states_them():
    names = {"threads": 2, "networks": "kp2d_nano", "other": "2"}
    run = notebook.begin("smoke", names, networks=names["networks"])
    assert names == {"threads": [2], "networks": ["kp2d_nano"], "other": "2"}
    assert run.settings == {"networks": ["kp2d_nano"]}
    assert run.stating(top_k=3).settings == {"networks": ["kp2d_nano"], "top_k": 3}
    with pytest.raises(checks.InputError, match="threads=1,2"):
        notebook.begin("smoke", names | {"threads": "two"})
    assert parameters.read("threads", "1 ") == [1]


@pytest.mark.parametrize(
    ("given", "choose"),
    [
        ({"image_size": (250, 333)}, "image_size=(248, 332)` or `image_size=(252, 336)"),
        ({"image_sizes": ((240, 320), (90, 90))}, "image_sizes=(88, 88)` or `image_sizes=(92, 92)"),
        ({"image_sizes": ((8, 8),)}, "image_sizes=(12, 12)"),
    ],
)
def test_a_size_off_the_cells_names_the_parameter_and_the_nearest_sizes(given, choose):
    with pytest.raises(checks.InputError, match=re.escape(f"Choose `{choose}`.")):
        settings.evaluation_settings("smoke", methods=("orb", "kp2d_nano:int8"), **given)
    if "image_size" in given:  # which the study of pyramids has, too
        with pytest.raises(checks.InputError, match=re.escape(f"Choose `{choose}`.")):
            settings.evaluation_settings("smoke", methods=("orb",), **given)
    else:
        assert settings.evaluation_settings("smoke", methods=("orb",), **given).methods == ("orb",)
