"""Owns running `.tflite` models of ours, on CPU or Edge TPU: pixels in, the three heads in floats out."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import backend, provenance
from kp2d.checks import InputError, first_line, one_of, problem
from kp2d.methods import tflite_file, tflite_verifier, tpu, weights
from kp2d.methods.decode import QuantizedMap, dequantize, sharpen

# Name to the module that has an `Interpreter`, best first.
RUNTIMES = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow.lite.python.interpreter",
}
PYCORAL = "pycoral"  # a runtime for models that are compiled for the Edge TPU, and for those only
INSTALL = {  # how to get each
    "litert": "Run pip install ai-edge-litert; on old devices pip install 'numpy<2' tflite-runtime.",
    "tflite-runtime": "Run pip install 'numpy<2' tflite-runtime; it has wheels for Python 3.8 to 3.11.",
    "tensorflow": "Run pip install '.[train]' in the folder of kp2d, or take another runtime.",
    PYCORAL: "Install it from Google's package index, as docs/devices.md says: PyPI's"
    " pycoral is another program.",
}
KERNELS = ("default", "builtin")  # `default` lets the runtime use XNNPACK


def available() -> tuple[str, ...]:
    """Returns the names of the runtimes that are installed, best first."""
    packages = {name: module.partition(".")[0] for name, module in RUNTIMES.items()}
    return tuple(name for name, package in packages.items() if importlib.util.find_spec(package))


class TFLiteModel:
    """A model file and what runs it.

    The image may have any size that the cell divides: where it differs from the file's, the tensors are
    allocated anew.

    Attributes:
        metadata: What the model says of itself; see `kp2d.methods.tflite_file`.
        runtime: What runs it: a key of `RUNTIMES` or "pycoral", with "+edgetpu" if on an Edge TPU.
        sha256: Of the file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        kernels: str = "default",
        use_tpu: bool | None = None,
        device: str | None = None,
    ) -> None:
        """Loads a model.

        Args:
            path: A `.tflite` file made by kp2d.
            runtime: A key of `RUNTIMES`, or "pycoral"; None takes the best that is installed.
            threads: Of the runtime; None takes one a core.
            kernels: `"default"`, or `"builtin"`, which repeats to the bit on every machine and is slower.
            use_tpu: Whether it must run on an Edge TPU, or must not; None does as the model is compiled.
            device: Which Edge TPU, as "usb:0"; None takes the first.

        Raises:
            InputError: If the file is no such model, no runtime is installed, or no Edge TPU answers.
        """
        if threads is not None and threads < 1:
            raise problem("one or more threads", threads)
        one_of("kernels", kernels, KERNELS)
        data, self.metadata = tflite_file.open_model(path)
        self.sha256 = weights.check(path, data)
        tflite_verifier.verify(data, path)  # the runtimes are C++, which a damaged file may crash
        self._on_tpu = _wants_tpu(path, data, self.metadata, use_tpu)
        chosen = choose(runtime, use_tpu=self._on_tpu)
        self.runtime = f"{chosen}+edgetpu" if self._on_tpu else chosen
        with _explained(path, chosen, self.metadata), backend.no_stderr():  # where it tells of its delegates
            if chosen == PYCORAL:
                self._interpreter = tpu.pycoral_interpreter(data, device)
            else:
                self._interpreter = self._open(data, chosen, threads, kernels, device)
            self._interpreter.allocate_tensors()
        self._outputs = self._name_outputs()
        self._check_ends(path)
        (self._input,) = self._interpreter.get_input_details()
        self._levels = self._input_levels()
        self._exact = np.array_equal(self._levels, (np.arange(256) - 128).astype(np.int8))

    def _open(self, data: bytes, runtime: str, threads: int | None, kernels: str, device: str | None) -> Any:
        module = importlib.import_module(RUNTIMES[runtime])
        options: dict[str, Any] = {"num_threads": threads or provenance.workers()}
        if self._on_tpu:
            options["experimental_delegates"] = [tpu.delegate(module, device)]
        if kernels == "builtin":
            without_xnnpack = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options["experimental_op_resolver_type"] = without_xnnpack
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # TensorFlow's, that LiteRT succeeds it
            return module.Interpreter(model_content=data, **options)

    def heads(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the network on uint8 RGB `[1, H, W, 3]`, both sides divisible by the cell.

        Returns `score_map`, `offset_map` and `descriptor_map`, float32, for `kp2d.methods.decode.decode`.
        """
        heads = self.decodable(pixels)
        if isinstance(kept := heads["descriptor_map"], QuantizedMap):
            heads["descriptor_map"] = dequantize(kept.values, kept.scale, kept.zero_point)
        return heads

    def decodable(self, pixels: np.ndarray) -> dict[str, np.ndarray | QuantizedMap]:
        """Runs the network as `heads` does, but leaves descriptors in integers: few of them will be read."""
        heads: dict[str, np.ndarray | QuantizedMap] = {}
        for name, values in self.raw_heads(pixels).items():
            if np.issubdtype(values.dtype, np.integer):
                take = QuantizedMap if name == "descriptor" else dequantize
                values = take(values, *self._outputs[name]["quantization"])
            heads[f"{name}_map"] = values
        heads["score_map"] = sharpen(heads["score_map"], self.metadata["score_sharpness"])
        return heads

    def raw_heads(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the network and returns "score", "offset" and "descriptor" as the model computes them."""
        if tuple(self._input["shape"]) != pixels.shape:
            self._resize(pixels.shape)
        self._interpreter.set_tensor(self._input["index"], self._enter(pixels))
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            name = f"a model {self.metadata['name']} that computes"
            raise problem(name, f"a failure ({first_line(error)})", "Make it again.") from error
        return {name: self._interpreter.get_tensor(tensor["index"]) for name, tensor in self._outputs.items()}

    def _resize(self, shape: tuple[int, ...]) -> None:
        before = tuple(self._input["shape"])
        if self._on_tpu:
            raise problem(
                f"an image of {before[1]}x{before[2]} px, for which this model is compiled",
                f"{shape[1]}x{shape[2]} px",
                f"Take `image_size=({before[1]}, {before[2]})`, or compile for another size.",
            )
        if not (failure := self._allocation(shape)):
            return
        side = next(
            cells * self.metadata["cell"] for cells in (3, 4) if before[1] != cells * self.metadata["cell"]
        )
        takes_any = not self._allocation((1, side, side, 3))
        self._allocation(before)
        if takes_any:  # then it is not the size as such
            raise MemoryError(f"an image of {shape[1]}x{shape[2]} px") from failure
        raise problem(
            f"an image of {before[1]}x{before[2]} px for this {self.metadata['precision']} model",
            f"{shape[1]}x{shape[2]} px ({first_line(failure)})",
            f"Take `image_size=({before[1]}, {before[2]})`, or convert the weights for another size.",
        ) from failure

    def _allocation(self, shape: tuple[int, ...]) -> Exception | None:
        """Makes room for images of a shape; returns what the runtime says if it cannot."""
        try:
            self._interpreter.resize_tensor_input(self._input["index"], shape)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            return error
        (self._input,) = self._interpreter.get_input_details()
        return None

    def _check_ends(self, path: str | Path) -> None:
        """Refuses a model that is not what it says of itself: one image in, three heads out."""
        images = [tuple(tensor["shape"]) for tensor in self._interpreter.get_input_details()]
        heads = {name: tuple(tensor["shape"]) for name, tensor in self._outputs.items()}
        image = images[0] if len(images) == 1 and len(images[0]) == 4 else (0, 0, 0, 0)
        height, width = image[1:3]
        grid = (1, height // self.metadata["cell"], width // self.metadata["cell"])
        descriptor = heads.get("descriptor", ())
        if not (
            image == (1, height, width, 3)
            and heads.get("score") == (*grid, 1)
            and heads.get("offset") == (*grid, 2)
            and len(descriptor) == 4
            and (descriptor[0], descriptor[3]) == (1, self.metadata["descriptor_dim"])
        ):
            raise problem(
                f"a model of one image and the heads {', '.join(tflite_file.SIGNATURE[1])}",
                f"{path} with {images} and {heads}",
                "Make it again.",
            )

    def _name_outputs(self) -> dict[str, dict[str, Any]]:
        """Finds the heads by the names in the signature: converters order them as they like."""
        tensors = self._interpreter.get_output_details()
        by_name = {tensor["name"].partition(":")[0]: tensor for tensor in tensors}
        return {name: by_name[name] for name in tflite_file.SIGNATURE[1] if name in by_name}

    def _enter(self, pixels: np.ndarray) -> np.ndarray:
        if self._exact:  # a pixel p is the int8 value p − 128
            return (pixels ^ 128).view(np.int8)
        return self._levels[pixels]

    def _input_levels(self) -> np.ndarray:
        """What each of the 256 values of a pixel is in the model's input tensor."""
        values = (np.arange(256) - self.metadata["pixel_offset"]) / self.metadata["pixel_scale"]
        kind = self._input["dtype"]
        if np.issubdtype(kind, np.floating):
            return values.astype(kind)
        scale, zero_point = self._input["quantization"]
        limits = np.iinfo(kind)
        return np.clip(np.floor(values / scale + 0.5) + zero_point, limits.min, limits.max).astype(kind)


@contextlib.contextmanager
def _explained(path: str | Path, runtime: str, metadata: dict[str, Any]) -> Iterator[None]:
    """Says what to do about errors of a runtime that opens a model; they do not."""
    try:
        yield
    except InputError as error:  # of an Edge TPU
        raise problem(error.expected, error.received, f"{error.remedy} {on_cpu(metadata)}") from error
    except (ValueError, RuntimeError) as error:
        raise problem("a whole .tflite model", f"{path} ({first_line(error)})", "Make it again.") from error
    except (SystemError, ImportError) as error:
        raise problem(
            f"a {runtime} that goes with NumPy {np.__version__}",
            f"one that does not load ({first_line(error)})",
            "tflite-runtime needs pip install 'numpy<2'; LiteRT takes any.",
        ) from error


def choose(runtime: str | None, *, use_tpu: bool = False) -> str:
    """Returns the name of a runtime that is installed: the best, unless one of `RUNTIMES` is given.

    For an Edge TPU that may be "pycoral", too.

    Raises:
        InputError: If it is unknown or not installed.
    """
    names = (PYCORAL, *RUNTIMES) if use_tpu else tuple(RUNTIMES)
    installed = (*((PYCORAL,) if use_tpu and tpu.has_pycoral() else ()), *available())
    if runtime is not None and one_of("runtime", runtime, names) in installed:
        return runtime
    if runtime is None and installed:
        return installed[0]
    raise problem(
        f"the package of the runtime {runtime}" if runtime else "a runtime for .tflite models",
        f"installed: {', '.join(installed) or 'none'}",
        INSTALL[runtime or "litert"],
    )


def _wants_tpu(path: str | Path, data: bytes, metadata: dict[str, Any], use_tpu: bool | None) -> bool:
    compiled = tpu.is_compiled(data)
    if use_tpu and not compiled:
        raise problem(
            "a model compiled for the Edge TPU",
            f"{path}, which is not",
            f"Run kp2d compile {_shipped_name(metadata) or path}, and name what it makes, "
            "or leave `use_tpu` out.",
        )
    if use_tpu is False and compiled:
        raise problem("a model for the CPU", f"{path}, compiled for the Edge TPU", on_cpu(metadata))
    return compiled


def on_cpu(metadata: dict[str, Any]) -> str:
    """Returns the sentence that says how the network of a compiled model runs without an Edge TPU."""
    name = _shipped_name(metadata)
    network = f"`method='{name}'` `precision='{metadata['precision']}'`"
    return f"On the CPU: {network if name else 'the model before compilation'}, without `use_tpu=True`."


def _shipped_name(metadata: dict[str, Any]) -> str:
    """The name of a model that comes with this package, at whatever size, else nothing."""
    name, precision = metadata["name"], metadata["precision"]
    path = weights.PRETRAINED / f"{name}.{precision}{weights.MODEL}"
    if not path.is_file():
        return ""
    size = {"image_size": metadata["image_size"]}
    return name if tflite_file.metadata(path.read_bytes()) | size == metadata else ""
