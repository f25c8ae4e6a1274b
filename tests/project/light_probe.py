"""What a small device does: MODEL KERNELS PIXELS.npy OUTPUT.npz; needs kp2d and a TFLite runtime only."""

import sys

import numpy as np

from kp2d.methods import learned

model, kernels, pixels, output = sys.argv[1:]
name, _, precision = model.partition(":")
image = np.load(pixels)
extractor = learned.load(name, precision=precision, kernels=kernels)
features = extractor.extract(image)
heads = extractor.heads(image)
np.savez(output, keypoints=features.keypoints, descriptors=features.descriptors, **heads)
sys.stdout.write(" ".join([extractor.runtime, np.__version__, *sorted(sys.modules)]))
