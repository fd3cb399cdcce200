"""The network, in PyTorch for training and in NumPy for composing, and the format of its checkpoints."""
