"""A short film for the tests of the live demonstration: one photograph, seen by a camera that moves."""

import cv2
import numpy as np

from kp2d.data import scenes

SIZE, FRAMES = (240, 320), 20


def photograph(name="astronaut"):
    return scenes.photograph(name)


def to_frame(k):
    """Photograph (512x512) to frame k: a camera that turns, comes nearer and tilts."""
    t = k / FRAMES * np.pi
    angle, zoom = 0.15 * np.sin(t), 0.85 - 0.1 * np.sin(t)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = np.array([159.5, 119.5]) - turn @ [256 + 30 * np.sin(t), 190 + 30 * np.cos(t)]
    matrix[2, 0] = 1e-4 * np.sin(2 * t)
    return matrix


def read_video(path):
    """Returns the frames, uint8 BGR, and their number a second."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)
