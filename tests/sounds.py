"""A sound for the pages, without an engine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sine(seconds: float, hz: float = 440.0, sample_rate: int = 44100) -> npt.NDArray[np.float32]:
    """A tone (N, 1)."""
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.3 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)[:, None]
