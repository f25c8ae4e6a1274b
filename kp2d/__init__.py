"""kp2d: the reproducible companion of KP2Dtiny, learned keypoints that run on the edge."""

__version__ = "0.1.0"
