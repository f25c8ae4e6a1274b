"""The forecast of what the Edge TPU compiler maps: each rule, the one part that it makes, and the costs."""

import dataclasses
import json

import pytest
from shipped_models import prepared

from kp2d import cli
from kp2d.checks import InputError
from kp2d.device import compiler, edgetpu, edgetpu_rules
from kp2d.methods import networks
from kp2d.quantize.flatbuffer import Graph, Model, Operator, Tensor

SIZES = ((88, 88), (240, 320), (480, 640))


class Builder:
    """Makes graphs: `t` a tensor, `op` an operator that appends itself."""

    def __init__(self):
        self.tensors, self.operators = [], []

    def t(self, *shape, kind="int8", constant=False, values=()):
        tensor = Tensor(
            index=len(self.tensors),
            name=f"t{len(self.tensors)}",
            type=kind,
            shape=shape,
            constant=constant or bool(values),
            values=values,
        )
        self.tensors.append(tensor)
        return tensor

    def op(self, name, inputs, *shape, version=1, kind="int8", custom=False, **options):
        result = self.t(*shape, kind=kind)
        self.operators.append(
            Operator(
                name=name,
                version=version,
                inputs=tuple(inputs),
                outputs=(result,),
                options=options,
                custom=custom,
            )
        )
        return result

    def conv(self, source, channels=8, **changes):
        kernel = self.t(channels, 3, 3, source.shape[3], constant=True)
        bias = self.t(channels, kind="int32", constant=True)
        return self.op("CONV_2D", [source, kernel, bias], *source.shape[:3], channels, version=3, **changes)

    def graph(self, inputs, outputs):
        return Graph(operators=tuple(self.operators), inputs=tuple(inputs), outputs=tuple(outputs))


@pytest.fixture
def b():
    return Builder()


def statuses(builder, inputs, outputs=None):
    outputs = outputs or builder.operators[-1].outputs
    return [finding.status for finding in edgetpu.forecast(builder.graph(inputs, outputs)).findings]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["kp2d_nano", "kp2d_tiny_s", "kp2d_tiny_f"])
def test_our_networks_are_mapped_in_full(name, size):
    report = edgetpu.lint(prepared(name, size))
    assert (len(report.unmapped), report.failure) == (0, "")
    assert {finding.operator for finding in report.findings} <= {
        name for name, rule in edgetpu_rules.RULES.items() if not rule.remedy
    }
    upsampling = sum(one.macs for one in report.findings if one.operator == "TRANSPOSE_CONV")
    assert report.macs - upsampling == networks.count_macs(name, size)
    height, width = size
    assert report.input_bytes == 3 * height * width
    cell, dim = {"kp2d_nano": (4, 32), "kp2d_tiny_s": (4, 4 * 32), "kp2d_tiny_f": (8, 4 * 64)}[name]
    cells = height * width // cell**2
    assert report.output_bytes == cells * (1 + 2 + dim)


def test_parameters_are_counted_with_the_compilers_padding(b):
    b.conv(b.t(1, 8, 8, 20), channels=70)
    (finding,) = edgetpu.forecast(b.graph([], b.operators[0].outputs)).findings
    assert finding.parameter_bytes == 128 * (9 * 32 + 8)


def test_costs_follow_from_bytes_and_operations(b):
    x = b.t(1, 100, 100, 10)
    y = b.conv(x, channels=10)
    report = edgetpu.forecast(b.graph([x], [y]))
    assert report.macs == 100 * 100 * 10 * 90
    assert report.compute_ms == pytest.approx(9e6 / 2e12 * 1e3)
    assert report.transfer_ms == pytest.approx(2e5 / 5e8 * 1e3)


def test_what_comes_after_an_unmapped_operator_stays_on_the_cpu(b):
    x = b.t(1, 8, 8, 8)
    first = b.conv(x)
    leaky = b.op("LEAKY_RELU", [first], 1, 8, 8, 8)
    behind = b.conv(leaky)
    beside = b.conv(first)
    joined = b.op("CONCATENATION", [behind, beside], 1, 8, 8, 16, version=2)
    report = edgetpu.forecast(b.graph([x], [joined]))
    assert [finding.status for finding in report.findings] == [
        compiler.MAPPED,
        edgetpu_rules.UNSUPPORTED,
        compiler.SUBGRAPH,
        compiler.MAPPED,
        compiler.SUBGRAPH,
    ]
    assert "after LEAKY_RELU" in report.unmapped[-1].why
    assert "--to-coral" in report.unmapped[0].why
    assert report.output_bytes == 2 * 8 * 8 * 8  # both that leave for the CPU


def test_quantizing_the_image_first_does_not_keep_the_rest_from_the_edge_tpu(b):
    x = b.t(1, 8, 8, 8, kind="float32")
    y = b.conv(b.op("QUANTIZE", [x], 1, 8, 8, 8))
    b.op("DEQUANTIZE", [y], 1, 8, 8, 8, kind="float32", version=2)
    assert statuses(b, [x]) == [edgetpu_rules.LIMITED, compiler.MAPPED, edgetpu_rules.TYPE]


def test_from_uint8_to_int8_is_mapped(b):
    x = b.t(1, 8, 8, 8, kind="uint8")
    b.conv(b.op("QUANTIZE", [x], 1, 8, 8, 8))
    assert statuses(b, [x]) == [compiler.MAPPED] * 2


def test_the_detection_operator_stays_on_the_cpu(b):
    x = b.t(1, 8, 8, 8)
    b.op("TFLite_Detection_PostProcess", [b.conv(x)], 1, 10, 4, kind="float32", custom=True)
    assert statuses(b, [x]) == [compiler.MAPPED, edgetpu_rules.TYPE]


def test_a_compiled_part_is_mapped(b):
    x = b.t(1, 8, 8, 8)
    b.op("edgetpu-custom-op", [x], 1, 8, 8, 8, custom=True)
    assert statuses(b, [x]) == [compiler.MAPPED]


def test_floats_are_not_compiled(b):
    x = b.t(1, 8, 8, 8, kind="float32")
    report = edgetpu.forecast(b.graph([x], [b.conv(x, kind="float32")]))
    assert report.unmapped[0].status == edgetpu_rules.TYPE
    assert "Model not quantized" in report.failure


def numbers(b, *values):
    return b.t(len(values), kind="int32", values=values)


CASES = {
    "grouped convolution": (
        lambda b: b.op("CONV_2D", [b.t(1, 8, 8, 8), b.t(8, 3, 3, 4, constant=True)], 1, 8, 8, 8, version=3),
        edgetpu_rules.VERSION,
    ),
    "dilation that differs": (
        lambda b: b.conv(b.t(1, 8, 8, 8), dilationWFactor=2, dilationHFactor=1),
        edgetpu_rules.LIMITED,
    ),
    "same dilation": (
        lambda b: b.conv(b.t(1, 8, 8, 8), dilationWFactor=2, dilationHFactor=2),
        compiler.MAPPED,
    ),
    "kernel that is computed": (
        lambda b: b.op("CONV_2D", [b.t(1, 8, 8, 8), b.t(8, 3, 3, 8)], 1, 8, 8, 8, version=3),
        edgetpu_rules.CONSTANT,
    ),
    "batch": (lambda b: b.conv(b.t(2, 8, 8, 8)), edgetpu_rules.RANK),
    "five dimensions": (
        lambda b: b.op("ADD", [b.t(2, 3, 4, 5, 6), b.t(2, 3, 4, 5, 6)], 2, 3, 4, 5, 6, version=2),
        edgetpu_rules.RANK,
    ),
    "pooling with an activation": (
        lambda b: b.op("MAX_POOL_2D", [b.t(1, 8, 8, 8)], 1, 4, 4, 8, version=2, fusedActivationFunction=1),
        edgetpu_rules.LIMITED,
    ),
    "one vector": (
        lambda b: b.op("SOFTMAX", [b.t(1, 1000)], 1, 1000, version=2),
        compiler.MAPPED,
    ),
    "softmax of a map": (
        lambda b: b.op("SOFTMAX", [b.t(1, 8, 8, 21)], 1, 8, 8, 21, version=2),
        edgetpu_rules.LIMITED,
    ),
    "softmax too wide": (
        lambda b: b.op("SOFTMAX", [b.t(1, 16_001)], 1, 16_001, version=2),
        edgetpu_rules.LIMITED,
    ),
    "padding rows": (
        lambda b: b.op("PAD", [b.t(1, 8, 8, 8), numbers(b, 0, 0, 1, 1, 1, 1, 0, 0)], 1, 10, 10, 8, version=2),
        compiler.MAPPED,
    ),
    "padding the batch": (
        lambda b: b.op("PAD", [b.t(1, 8, 8, 8), numbers(b, 0, 1, 0, 0, 0, 0, 0, 0)], 1, 8, 8, 8, version=2),
        edgetpu_rules.LIMITED,
    ),
    "mean over the image": (
        lambda b: b.op("MEAN", [b.t(1, 8, 8, 6), numbers(b, 1, 2)], 1, 6, version=2),
        compiler.MAPPED,
    ),
    "mean over six channels": (
        lambda b: b.op("MEAN", [b.t(1, 8, 8, 6), numbers(b, -1)], 1, 8, 8, version=2),
        edgetpu_rules.LIMITED,
    ),
    "doubling": (
        lambda b: b.op("RESIZE_NEAREST_NEIGHBOR", [b.t(1, 60, 80, 8), numbers(b, 120, 160)], 1, 120, 160, 8),
        compiler.MAPPED,
    ),
    "to 512": (
        lambda b: b.op("RESIZE_BILINEAR", [b.t(1, 256, 256, 8), numbers(b, 512, 512)], 1, 512, 512, 8),
        edgetpu_rules.LIMITED,
    ),
    "half pixels": (
        lambda b: b.op(
            "RESIZE_NEAREST_NEIGHBOR",
            [b.t(1, 60, 80, 8), numbers(b, 120, 160)],
            *(1, 120, 160, 8),
            version=3,
            halfPixelCenters=True,
        ),
        edgetpu_rules.VERSION,
    ),
    "one pixel blown up": (
        lambda b: b.op("RESIZE_BILINEAR", [b.t(1, 1, 1, 8), numbers(b, 33, 33)], 1, 33, 33, 8),
        edgetpu_rules.LIMITED,
    ),
    "strides": (
        lambda b: b.op(
            "STRIDED_SLICE",
            [b.t(1, 8, 8, 8), numbers(b, 0, 0), numbers(b, 1, 8), numbers(b, 1, 2)],
            *(1, 4, 8, 8),
            version=2,
        ),
        edgetpu_rules.LIMITED,
    ),
    "slopes by pixel": (
        lambda b: b.op("PRELU", [b.t(1, 8, 8, 8), b.t(8, 8, 8, constant=True)], 1, 8, 8, 8),
        edgetpu_rules.LIMITED,
    ),
    "split of the batch": (
        lambda b: b.op("SPLIT", [numbers(b, 0), b.t(1, 8, 8, 8)], 1, 8, 8, 8, version=2),
        edgetpu_rules.LIMITED,
    ),
    "joined with two constants": (
        lambda b: b.op(
            "CONCATENATION",
            [b.t(1, 8, 8, 8), b.t(1, 8, 8, 8, constant=True), b.t(1, 8, 8, 8, constant=True)],
            *(1, 8, 8, 24),
            version=2,
        ),
        edgetpu_rules.LIMITED,
    ),
    "joined with ones": (
        lambda b: b.op(
            "CONCATENATION", [b.t(1, 8, 8, 8), b.t(1, 8, 8, 8, constant=True)], 1, 8, 8, 16, version=2
        ),
        edgetpu_rules.LIMITED,
    ),
    "depth to space": (
        lambda b: b.op("DEPTH_TO_SPACE", [b.t(1, 8, 8, 8)], 1, 16, 16, 2, version=2, blockSize=2),
        edgetpu_rules.UNSUPPORTED,
    ),
    "transposed convolution with a bias": (
        lambda b: b.op(
            "TRANSPOSE_CONV",
            [numbers(b, 1, 16, 16, 8), b.t(8, 2, 2, 8, constant=True), b.t(1, 8, 8, 8), numbers(b, 0)],
            *(1, 16, 16, 8),
            version=3,
        ),
        compiler.MAPPED,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_rule(b, case):
    make, expected = CASES[case]
    make(b)
    (finding,) = edgetpu.forecast(b.graph([], [])).findings
    assert finding.status == expected
    assert bool(finding.why) == (expected != compiler.MAPPED)


def test_an_image_of_open_size_makes_the_compiler_give_up(b):
    x = b.t(1, 1, 1, 8)
    report = edgetpu.forecast(b.graph([dataclasses.replace(x, open=True)], [b.conv(x)]))
    assert "size of its image is open" in report.failure
    told = report.to_dict()
    assert (told["num_mapped"], told["num_unmapped"], len(told["unmapped"])) == (0, 1, 1)
    assert "the compiler gives up" in report.text() and "parameters" not in report.text()


@pytest.mark.parametrize(
    ("change", "kind", "version", "told"),
    [
        ({"open_batch": True}, "int8", 3, ["batch is open"]),
        ({"open_batch": True}, "float32", 9, ["batch is open", "not quantized", "version '9'"]),
        ({"open": True}, "int8", 9, ["size of its image is open", "version '9'"]),
        ({}, "int16", 9, ["computes in int16", "version '9'"]),
    ],
)
def test_what_stops_the_compiler_is_told_in_order(b, change, kind, version, told):
    x = dataclasses.replace(b.t(1, 8, 8, 8, kind=kind), **change)
    kernel, bias = b.t(8, 3, 3, 8, constant=True), b.t(8, kind="int32", constant=True)
    y = b.op("CONV_2D", [x, kernel, bias], 1, 8, 8, 8, version=version, kind=kind)
    failure = edgetpu.forecast(b.graph([x], [y])).failure
    places = [failure.find(words) for words in told]
    assert (
        places == sorted(places)
        and places[0] >= 0
        and failure.count(": convert") + failure.count("Didn't") == len(told)
    )


def test_an_open_size_inside_the_network_is_named(b):
    x = b.t(1, 8, 8, 8)
    b.conv(x)
    inside = dataclasses.replace(b.operators[0].outputs[0], open=True)
    b.operators[0] = dataclasses.replace(b.operators[0], outputs=(inside,))
    assert f"The size of {inside.name} is open" in edgetpu.forecast(b.graph([x], [inside])).failure


def test_a_version_that_can_be_lowered_is_told_from_one_that_cannot(b):
    x = b.t(1, 8, 8, 8)
    kernel = b.t(8, 3, 3, 8, constant=True)
    b.op("CONV_2D", [x, kernel, b.t(8, kind="int32", constant=True)], 1, 8, 8, 8, version=6)
    b.op(
        "TRANSPOSE_CONV",
        [numbers(b, 1, 8, 8, 8), kernel, x],
        1,
        8,
        8,
        8,
        version=4,
        fusedActivationFunction=1,
    )
    report = edgetpu.forecast(b.graph([x], []))
    first, second = report.unmapped
    assert report.failure == "Didn't find op for builtin opcode 'CONV_2D' version '6'."
    assert first.status == second.status == edgetpu_rules.VERSION
    assert "kp2d compile declares it" in first.why and "kp2d compile" not in second.why


# The command.


def test_lint_writes_a_table_and_json(capsys, tmp_path):
    assert cli.main(["lint", "kp2d_tiny_s"]) == 0
    page = capsys.readouterr().out
    assert "DEPTH_TO_SPACE                   1  Operation not supported" in page
    assert "18 operators on the Edge TPU, 4 on the CPU" in page
    path = tmp_path / "x.tflite"
    path.write_bytes(prepared().pack())
    assert cli.main(["lint", str(path), "--json", "--strict"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["num_operators"], told["num_unmapped"], told["unmapped"]) == (22, 0, [])
    assert told["fits_on_chip"] and told["input_bytes"] == 3 * 88 * 88
    assert cli.main(["lint", "kp2d_tiny_s", "--json", "--strict"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["num_unmapped"] == len(told["unmapped"]) == 4
    assert told["unmapped"][0]["operator"] == "DEPTH_TO_SPACE"


def test_a_float_model_is_told_to_be_quantized_first(capsys, tmp_path):
    path = tmp_path / "float.tflite"
    assert cli.main(["quantize", "kp2d_tiny_s", "--precision", "float32", "-o", str(path)]) == 0
    capsys.readouterr()
    assert cli.main(["lint", str(path)]) == 0
    assert "the compiler gives up: Model not quantized" in capsys.readouterr().out


def test_a_damaged_model_is_named(tmp_path):
    with pytest.raises(InputError, match="damaged"):
        edgetpu.lint(Model.parse(prepared().pack()[:1000]))
    (tmp_path / "x.tflite").write_bytes(b"nothing")
    assert cli.main(["lint", str(tmp_path / "x.tflite")]) == 2
