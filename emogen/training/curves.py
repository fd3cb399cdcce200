"""The curves of a training run, from its log: losses and learning rate in one picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from emogen.sound.picture import FAINT, GRID, INK, Box, Colour, Sheet, write
from emogen.system.files import shown

NAME = "curves.png"
COLOURS: tuple[Colour, ...] = ((31, 98, 168), (202, 54, 110), (226, 132, 24), (46, 140, 96))

Line = list[tuple[int, float]]
"""Points: epoch and value."""


def draw(folder: Path) -> None:
    """Draw the log in a run's folder as NAME beside it.

    Raises:
        Exception: of any kind: the log is missing or damaged, the disk is full, or Pillow fails.
    """
    epochs = read_log((folder / "log.jsonl").read_text(encoding="utf-8"))
    write(folder / NAME, picture(epochs, f"run {shown(folder.name)}"))


def read_log(text: str) -> list[dict[str, Any]]:
    """The epochs of a log in order; epochs that were repeated after resuming from an earlier checkpoint count once."""
    epochs: list[dict[str, Any]] = []
    for line in text.splitlines():
        facts = json.loads(line)
        while epochs and epochs[-1]["epoch"] >= facts["epoch"]:
            epochs.pop()
        epochs.append(facts)
    return epochs


def picture(epochs: list[dict[str, Any]], title: str) -> Image.Image:
    """The losses by epoch, the valid loss also by family, and below them the learning rate."""
    sheet = Sheet()
    best = min(epochs, key=lambda facts: float(facts["valid"]))
    sheet.text(40, 26, sheet.fit(title, 32, 800), 32)
    sheet.text(1560, 36, f"best: epoch {best['epoch']}, valid {best['valid']:.4f} nats per note", 20, "ra", FAINT)
    both: dict[str, Line] = {"train": [], "valid": []}
    families: dict[str, Line] = {}
    rate: Line = []
    if all("voice" in facts for facts in epochs):
        both["voice"] = []
    for facts in epochs:
        for name, line in both.items():
            line.append((facts["epoch"], facts[name]))
        for name, nats in facts["valid_by_family"].items():
            families.setdefault(name, []).append((facts["epoch"], nats))
        if "learning_rate" in facts:  # emogen 0.2 did not log it
            rate.append((facts["epoch"], facts["learning_rate"]))
    _chart(sheet, Box(110, 130, 740, 610), "loss, nats per note", both)
    _chart(sheet, Box(890, 130, 1480, 610), "valid loss by family", families)
    if rate:
        _chart(sheet, Box(110, 700, 1480, 830), "learning rate at the end of the epoch", {"": rate}, from_zero=True)
    return sheet.image()


def _chart(sheet: Sheet, box: Box, title: str, lines: Mapping[str, Line], from_zero: bool = False) -> None:
    """Lines over the epochs, each named at its end."""
    values = [value for line in lines.values() for _, value in line]
    first, last = (pick(epoch for line in lines.values() for epoch, _ in line) for pick in (min, max))
    low, high = 0.0 if from_zero else min(values), max(values)
    step = _step(max(high - low, 1e-9), most=2 if box.bottom - box.top < 200 else 6)
    low, high = step * math.floor(low / step), step * math.ceil(high / step + 1e-9)
    high = max(high, low + step)

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = (epoch - first) / (last - first) if last > first else 0.5
        up = (value - low) / (high - low)
        return box.left + across * (box.right - box.left), box.bottom - up * (box.bottom - box.top)

    sheet.text(box.left, box.top - 16, title, 20, "ls", INK)
    for number in range(round((high - low) / step) + 1):
        mark = low + number * step
        y = place(first, mark)[1]
        sheet.line([(box.left, y), (box.right, y)], GRID)
        sheet.text(box.left - 10, y, f"{mark:.6g}", 18, "rm", FAINT)
    every = max(1, round(_step(last - first or 1, most=12)))
    for epoch in range(first, last + 1):
        if epoch % every == 0 or first == last:
            x = place(epoch, low)[0]
            sheet.line([(x, box.bottom), (x, box.bottom + 6)], FAINT)
            sheet.text(x, box.bottom + 10, str(epoch), 18, "ma", FAINT)
    sheet.line([(box.left, box.bottom), (box.right, box.bottom)], FAINT)
    sheet.text(box.right + 14, box.bottom + 10, "epoch", 18, "la", FAINT)

    label_y = math.inf
    ends = sorted(lines.items(), key=lambda named: named[1][-1][1])  # from the bottom up, so that names do not overlap
    for number, line in enumerate(lines.values()):
        points = [place(*point) for point in line]
        sheet.line(points, COLOURS[number % len(COLOURS)], 2.5)
        for x, y in points if len(points) < 40 else points[-1:]:
            sheet.dot(x, y, COLOURS[number % len(COLOURS)])
    for name, line in ends:
        label_y = min(place(*line[-1])[1], label_y - 22)
        sheet.text(box.right + 14, label_y, name, 18, "lm", COLOURS[list(lines).index(name) % len(COLOURS)])


def _step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5, 10, ... (times a power of ten) that divides a span into at most ``most`` parts."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(step for step in (power, 2 * power, 5 * power, 10 * power) if span / step <= most * (1 + 1e-9))
