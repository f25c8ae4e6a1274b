"""Packages that a small device has no use for: importing kp2d there must not load them."""

HEAVY = [
    *("tensorflow", "keras", "matplotlib", "pandas", "papermill", "IPython", "sklearn", "skimage", "scipy"),
    *("tqdm", "requests", "nbformat"),
]
