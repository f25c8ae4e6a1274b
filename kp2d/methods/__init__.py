"""One `extract(image)` for every keypoint method, and what two images have in common.

Features, decoding, matching, registration; the networks in float and in integers, their weights, and the
runtimes that execute them. Loads neither TensorFlow nor Matplotlib, but for `networks` and `quantized`.
"""
