"""Keypoints live, on a camera, a video or pictures (`kp2d demo`); sees the hall and `methods` only."""
