"""Int8 models of this package as tests need them: for another size, for the Edge TPU, as if compiled."""

import numpy as np

from kp2d.methods import tflite_file, weights
from kp2d.quantize import rewriting
from kp2d.quantize.flatbuffer import Model


def shipped(name="kp2d_tiny_s", size=(88, 88)):
    """An int8 model of this package for an image of another size."""
    model = Model.parse(weights.shipped_path(name, "int8").read_bytes())
    rewriting.resize(model, size)
    return model


def prepared(name="kp2d_tiny_s", size=(88, 88)):
    """The same in the form for the Edge TPU."""
    model = shipped(name, size)
    rewriting.for_edgetpu(model)
    return model


def as_compiled(data):
    """What the compiler makes of a model: one operator of its own, no metadata, no signature."""
    from ai_edge_litert import schema_py_generated as schema

    model = Model.parse(data)
    tables = model.edit()
    (graph,) = tables.subgraphs
    number = schema.BuiltinOperator.CUSTOM
    tables.operatorCodes = [
        schema.OperatorCodeT(
            deprecatedBuiltinCode=number, builtinCode=number, customCode="edgetpu-custom-op", version=1
        )
    ]
    options = np.arange(256, dtype=np.uint8)
    operator = schema.OperatorT(
        opcodeIndex=0, inputs=graph.inputs, outputs=graph.outputs, customOptions=options
    )
    graph.operators, tables.metadata, tables.signatureDefs = [operator], None, None
    return model.pack()


def restored(compiled, source):
    model = Model.parse(compiled)
    rewriting.restore(model, tflite_file.metadata(source))
    return model
