"""The training loop, the folder of a run, training in several processes, curves."""
