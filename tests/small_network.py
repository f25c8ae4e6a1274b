"""A network like TinyS with a sixteenth of its channels, for the tests and the processes they start."""

import functools
from types import SimpleNamespace

import cv2
import numpy as np

from kp2d.methods.networks import NetworkConfig, to_coral

SMALL = NetworkConfig(
    name="test_small",
    stages=((4, 4), (4, 4), (4, 8), (8, 8)),
    pools=(True, False, True),
    head_channels=8,
    upsampled_channels=4,
    merge_channels=8,
    descriptor_dim=8,
    activation="relu",
    num_parameters=0,
)
SMALL_CORAL = to_coral(SMALL, num_parameters=0)
SMALL_COARSE = NetworkConfig(  # a strided stem; descriptors at half the resolution of the cells
    name="test_small_coarse",
    stages=((8,), (8, 12, 8)),
    strides=(2, 2),
    strided_kernel=4,
    head_channels=8,
    descriptor_blocks=(12, 8),
    descriptor_stride=2,
    output_kernel=1,
    descriptor_dim=8,
    activation="relu",
    num_parameters=0,
)
SIZE = (48, 64)  # of its models


def random_pixels(size=SIZE, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3), np.uint8)


@functools.cache
def small_model(config):
    """A network whose batch norm has seen pictures, the same in integers, and the bytes of its int8 model."""
    import keras

    from kp2d.methods import networks
    from kp2d.methods.decode import normalized
    from kp2d.quantize import convert, quantization

    keras.utils.set_random_seed(0)
    network = networks.build_network(config)
    inputs = [normalized(random_pixels(seed=seed)) for seed in (0, 1)]
    for _ in range(40):
        network(np.concatenate(inputs), training=True)
    quantized = quantization.post_training(network, config, inputs)
    export = convert.Export(name=config.name, precision="int8_ptq", image_size=SIZE)
    data = convert.to_tflite(quantized, config, export).pack()
    return SimpleNamespace(config=config, network=network, quantized=quantized, data=data)


def write_photos(folder, count=4, size=(72, 96)):
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noise = rng.integers(0, 256, (9, 12, 3), np.uint8)
        image = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"photo{index}.png"), image)
    return folder
