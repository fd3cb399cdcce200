"""The training loop, the folder a run lives in, several processes, curves."""
