"""Models on hardware: the Edge TPU's rules and compiler, what that maps, and latencies (notebook 04)."""
