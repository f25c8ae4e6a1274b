"""Owns the forecast of what the Edge TPU compiler makes of a model, and what running that costs at least.

A forecast is no compilation: `kp2d.device.compiler` runs Google's program; `kp2d.device.edgetpu_rules` has
what is known of its rules.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

from kp2d.checks import problem
from kp2d.device.compiler import MAPPED, SUBGRAPH
from kp2d.device.edgetpu_rules import COMPILED, judge, too_new
from kp2d.quantize.flatbuffer import Graph, Model, Operator, Tensor

FAILED = "Compilation failed!"
MEMORY = 8 * 2**20  # bytes on the chip, for parameters and the executable
MACS_PER_SECOND = 2e12  # 4 TOPS, a multiply-accumulate being two operations
USB3_BYTES_PER_SECOND = 500e6  # 5 Gbit/s, ten bits a byte

_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What becomes of one operator."""

    index: int  # its place in the file
    operator: str  # its name
    version: int  # of its definition
    status: str  # in the compiler's words; `MAPPED` or why not
    why: str  # more, and what to do; empty if it is mapped
    macs: int  # multiply-accumulates
    parameter_bytes: int  # on the chip

    @property
    def mapped(self) -> bool:
        """Whether the Edge TPU computes it."""
        return self.status == MAPPED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What the compiler is expected to make of a model."""

    findings: tuple[Finding, ...]  # one an operator, in the order of computation
    failure: str  # why the compiler is expected to give up; empty if it is not
    input_bytes: int  # to the Edge TPU, an image
    output_bytes: int  # from the Edge TPU, an image
    largest_bytes: int  # of the largest tensor; the compiler refuses some models for large ones

    @property
    def unmapped(self) -> tuple[Finding, ...]:
        """Operators that stay on the CPU."""
        return tuple(finding for finding in self.findings if not finding.mapped)

    @property
    def parameter_bytes(self) -> int:
        """On the chip, padded as the compiler pads; within 2% of three models that Google compiled."""
        return sum(finding.parameter_bytes for finding in self.findings if finding.mapped)

    @property
    def macs(self) -> int:
        """Multiply-accumulates on the Edge TPU."""
        return sum(finding.macs for finding in self.findings if finding.mapped)

    @property
    def compute_ms(self) -> float:
        """Least time that the arithmetic takes at 4 TOPS."""
        return 1e3 * self.macs / MACS_PER_SECOND

    @property
    def transfer_ms(self) -> float:
        """Least time of an image's bytes over USB 3, parameters that do not fit on the chip included."""
        streamed = max(0, self.parameter_bytes - MEMORY)
        return 1e3 * (self.input_bytes + self.output_bytes + streamed) / USB3_BYTES_PER_SECOND

    def rows(self) -> list[dict[str, Any]]:
        """Returns the compiler's own table: operator, count and status."""
        counts = Counter((finding.operator, finding.status) for finding in self.findings)
        return [{"operator": name, "count": n, "status": status} for (name, status), n in counts.items()]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON takes it."""
        return {
            "num_operators": len(self.findings),
            "num_mapped": len(self.findings) - len(self.unmapped),
            "num_unmapped": len(self.unmapped),
            "unmapped": [
                {name: getattr(finding, name) for name in ("index", "operator", "version", "status", "why")}
                for finding in self.unmapped
            ],
            "operators": self.rows(),
            "failure": self.failure,
            "parameter_bytes": self.parameter_bytes,
            "fits_on_chip": self.parameter_bytes <= MEMORY,
            "macs": self.macs,
            "compute_ms": round(self.compute_ms, 3),
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "transfer_ms": round(self.transfer_ms, 3),
            "largest_tensor_bytes": self.largest_bytes,
        }

    def text(self) -> str:
        """Returns a page to read: the compiler's table, why not, and the costs."""
        lines = [f"{'Operator':<28} {'Count':>5}  Status"]
        lines += [f"{row['operator']:<28} {row['count']:>5}  {row['status']}" for row in self.rows()]
        stay = len(self.unmapped)
        lines += [""] + [f"the compiler gives up: {self.failure}"] * bool(self.failure)
        lines += [f"{len(self.findings) - stay} operators on the Edge TPU, {stay} on the CPU"]
        reasons = Counter((finding.operator, finding.why) for finding in self.unmapped)
        lines += [f"  {count} {operator}: {why}" for (operator, why), count in reasons.items()]
        if not self.failure and all(finding.operator != COMPILED for finding in self.findings):
            fits = "fit" if self.parameter_bytes <= MEMORY else "do not all fit"
            lines += [
                f"parameters: about {self.parameter_bytes / 2**20:.2f} MiB, which {fits} on the chip (8 MiB)",
                f"arithmetic: {self.macs / 1e9:.3f} G multiply-adds, at least {self.compute_ms:.2f} ms",
                f"largest tensor: {self.largest_bytes / 2**20:.1f} MiB, which may be refused if it is large",
            ]
        if not self.failure:
            lines += [
                f"transfer: {self.input_bytes:,} bytes in, {self.output_bytes:,} bytes out, "
                f"at least {self.transfer_ms:.2f} ms over USB 3"
            ]
        return "\n".join(lines)


def lint(model: Model) -> Report:
    """Forecasts what the compiler makes of a model; of a compiled one, says what it made.

    Raises:
        InputError: If an operator lacks what it needs.
    """
    graph = model.graph()
    try:
        return forecast(graph)
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise problem(
            "operators with the tensors and options that they need",
            f"a damaged model ({error})",
            "Copy or make it again.",
        ) from error


def forecast(graph: Graph) -> Report:
    """Does the same for a graph of operators."""
    statuses = _partition(graph)
    failure = _failure(graph, [status for status, _ in statuses])
    if failure:  # of the model as a whole
        statuses = [(FAILED, failure) if status == MAPPED else (status, why) for status, why in statuses]
    findings = tuple(
        Finding(
            index=index,
            operator=operator.name,
            version=operator.version,
            status=status,
            why=why,
            macs=count_macs(operator),
            parameter_bytes=_parameter_bytes(operator),
        )
        for index, (operator, (status, why)) in enumerate(zip(graph.operators, statuses, strict=True))
    )
    entering, leaving = _boundary(graph, [finding.mapped for finding in findings])
    computed = (tensor for operator in graph.operators for tensor in operator.outputs)
    return Report(
        findings=findings,
        failure=failure,
        largest_bytes=max((tensor.bytes for tensor in computed), default=0),
        input_bytes=sum(tensor.bytes for tensor in entering),
        output_bytes=sum(tensor.bytes for tensor in leaving),
    )


def _partition(graph: Graph) -> list[tuple[str, str]]:
    """Gives every operator its status: only one part of the graph becomes the Edge TPU's.

    What is computed from an operator on the CPU stays there, but for a first operator that quantizes floats.
    """
    on_cpu: dict[int, str] = {}  # tensor to the operator that keeps it from the Edge TPU
    statuses = []
    for operator in graph.operators:
        status, why = judge(operator)
        behind = [on_cpu[tensor.index] for tensor in operator.inputs if tensor.index in on_cpu]
        if behind and status == MAPPED:
            status, why = SUBGRAPH, f"It comes after {behind[0]}, which stays on the CPU."
        if status != MAPPED and not _opens(operator, graph):
            on_cpu.update(
                {tensor.index: behind[0] if behind else operator.name for tensor in operator.outputs}
            )
        statuses.append((status, why))
    return statuses


def _opens(operator: Operator, graph: Graph) -> bool:
    inputs = {tensor.index for tensor in graph.inputs}
    return operator.name == "QUANTIZE" and operator.inputs[0].index in inputs


def _boundary(graph: Graph, mapped: list[bool]) -> tuple[list[Tensor], list[Tensor]]:
    """Lists the tensors that enter and leave the Edge TPU."""
    ours = [operator for operator, inside in zip(graph.operators, mapped, strict=True) if inside]
    others = [operator for operator, inside in zip(graph.operators, mapped, strict=True) if not inside]
    made = {tensor.index: tensor for operator in ours for tensor in operator.outputs}
    read = {tensor.index: tensor for operator in ours for tensor in operator.inputs if not tensor.constant}
    wanted = {tensor.index for operator in others for tensor in operator.inputs}
    wanted |= {tensor.index for tensor in graph.outputs}
    entering = [tensor for index, tensor in read.items() if index not in made]
    return entering, [tensor for index, tensor in made.items() if index in wanted]


def _failure(graph: Graph, statuses: list[str]) -> str:
    """Says why the compiler gives up: open sizes, then types, then versions; empty if it does not."""
    computed = [tensor for operator in graph.operators for tensor in operator.outputs]
    reasons = []
    if any(tensor.open for tensor in graph.inputs):
        reasons.append("The size of its image is open: convert it for one size.")
    elif any(tensor.open_batch for tensor in graph.inputs):
        reasons.append("Its batch is open: convert it for a batch of 1.")
    elif opened := next((tensor.name for tensor in computed if tensor.open or tensor.open_batch), None):
        reasons.append(f"The size of {opened} is open: convert it for fixed sizes.")
    types = {tensor.type for tensor in computed}
    if types and not types & {"int8", "uint8"}:
        floats = types & {"float16", "float32", "float64"}
        received = "Model not quantized" if floats else f"It computes in {', '.join(sorted(types))}"
        reasons.append(f"{received}: convert it to int8.")
    for operator in filter(too_new, graph.operators):
        reasons.append(f"Didn't find op for builtin opcode '{operator.name}' version '{operator.version}'.")
        break
    if reasons:
        return " ".join(reasons)
    if MAPPED not in statuses:
        return "Nothing of the model is mapped."
    return ""


def count_macs(operator: Operator) -> int:
    """Counts the multiply-accumulates of an operator; 0 for those without weights."""
    if operator.name not in _WEIGHTED:
        return 0
    kernel = operator.inputs[1].shape
    if operator.name == "TRANSPOSE_CONV":  # every pixel of its input meets every weight
        return math.prod(operator.inputs[2].shape[:-1]) * math.prod(kernel)
    if operator.name == "DEPTHWISE_CONV_2D":
        return math.prod(operator.outputs[0].shape) * math.prod(kernel[1:3])
    return math.prod(operator.outputs[0].shape[:-1]) * math.prod(kernel)


def _parameter_bytes(operator: Operator) -> int:
    """Bytes of an operator's weights on the chip.

    Output channels are padded to 64, input channels to 16, and each output channel takes 8 bytes more for
    bias and scale: fitted to three compiled models.
    """
    if operator.name not in _WEIGHTED:
        return sum(tensor.bytes for tensor in operator.inputs if tensor.constant and tensor.type != "int32")
    kernel = operator.inputs[1].shape
    if operator.name == "DEPTHWISE_CONV_2D":
        return kernel[3] * (math.prod(kernel[:3]) + 8)
    channels, *window, depth = kernel
    return _up(channels, 64) * (math.prod(window) * _up(depth, 16) + 8)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
