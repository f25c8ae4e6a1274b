"""Fixtures of the live demonstration: frames whose motion is known, and two methods."""

import cv2
import pytest
from film import FRAMES, SIZE, photograph, to_frame

from kp2d.methods import extractors


@pytest.fixture(scope="session")
def frames():
    picture = photograph()
    return [
        cv2.warpPerspective(picture, to_frame(k), SIZE[::-1], flags=cv2.INTER_AREA) for k in range(FRAMES)
    ]


@pytest.fixture(scope="session")
def film(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "astronaut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, SIZE[::-1])
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.fixture(scope="session")
def tiny():
    return extractors.create("kp2d_tiny_s", precision="int8")


@pytest.fixture(scope="session")
def orb():
    return extractors.create("orb")
