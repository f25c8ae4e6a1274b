"""A network like TinyS with a sixteenth of its channels, for the tests and the processes they start."""

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
