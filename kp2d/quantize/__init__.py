"""Float weights become integers: calibration, the int8 network, `.tflite` and other files (notebook 03)."""
