"""What a small device does: MODEL KERNELS PIXELS.npy OUTPUT.npz; needs kp2d and a TFLite runtime only."""

import sys

import numpy as np

import kp2d

model, kernels, pixels, output = sys.argv[1:]
image = np.load(pixels)
extractor = kp2d.load(model, kernels=kernels)
features = extractor.extract(image)
heads = extractor.heads(image)
np.savez(output, keypoints=features.keypoints, descriptors=features.descriptors, **heads)
sys.stdout.write(" ".join([extractor.runtime, np.__version__, *sorted(sys.modules)]))
