"""Runs a model under whatever runtime this Python has: MODEL PIXELS.npy OUTPUT.npz; needs NumPy only."""

import sys

import numpy as np

try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    from ai_edge_litert.interpreter import Interpreter

model, pixels, output = sys.argv[1:]
interpreter = Interpreter(model_path=model)
runner = interpreter.get_signature_runner()
heads = runner(image=(np.load(pixels).astype(np.int16) - 128).astype(np.int8))
np.savez(output, **heads)
