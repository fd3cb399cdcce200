from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emogen.training.curves import COLOURS, NAME, _step, draw, picture, read_log

FAMILIES = ("shift", "pitch", "velocity", "duration")


def epoch(number: int, train: float = 8.0, **more: Any) -> dict[str, Any]:
    by_family = {name: 2.0 + place + 1 / number for place, name in enumerate(FAMILIES)}
    loss = {"epoch": number, "train": train, "valid": sum(by_family.values()), "valid_by_family": by_family}
    return loss | {"learning_rate": 1e-3 / number} | more


def log(folder: Path, epochs: list[dict[str, Any]]) -> Path:
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in epochs))
    return folder


def columns(pixels: np.ndarray[Any, Any], colour: tuple[int, int, int], box: tuple[int, int, int, int]) -> list[float]:
    """The mean row of a colour in each column of a part (left, top, right, bottom) of a picture; nan for none."""
    left, top, right, bottom = box
    is_it = np.abs(pixels[top:bottom, left:right].astype(int) - colour).max(axis=2) < 40
    return [float(np.flatnonzero(rows).mean()) + top if rows.any() else math.nan for rows in is_it.T]


def test_curves_go_where_the_losses_go(tmp_path: Path) -> None:
    draw(log(tmp_path, [epoch(number, train=20 - number) for number in range(1, 11)]))
    with Image.open(tmp_path / NAME) as image:
        assert image.size == (1600, 900)
        pixels = np.asarray(image.convert("RGB"))
    train = columns(pixels, COLOURS[0], (120, 130, 735, 610))
    assert train[50] < train[300] < train[550]  # down the sheet, so falling
    families = [columns(pixels, colour, (900, 130, 1470, 610))[100] for colour in COLOURS]
    assert families == sorted(families, reverse=True)
    assert len(set(families)) == 4
    rate = columns(pixels, COLOURS[0], (120, 705, 1470, 829))
    assert rate[20] < rate[1300]


def test_one_epoch_is_drawn_as_points(tmp_path: Path) -> None:
    draw(log(tmp_path, [epoch(1)]))
    with Image.open(tmp_path / NAME) as image:
        pixels = np.asarray(image.convert("RGB"))
    for colour, (left, right) in ((COLOURS[0], (120, 735)), (COLOURS[1], (120, 735)), (COLOURS[3], (900, 1470))):
        drawn = np.flatnonzero(np.isfinite(columns(pixels, colour, (left, 130, right, 610)))) + left
        middle = {120: 425, 900: 1185}[left]  # of the chart, from 110 to 740 and from 890 to 1480
        assert 3 < len(drawn) < 20
        assert drawn.mean() == pytest.approx(middle, abs=1)


def test_a_log_without_learning_rates_is_drawn(tmp_path: Path) -> None:
    old = [epoch(1), epoch(2)]
    for one in old:
        del one["learning_rate"]
    pixels = np.asarray(picture(old, "run"))
    assert (pixels[660:] == 255).all()


def test_a_run_that_went_on_from_further_back_forgets_what_it_left() -> None:
    lines = [epoch(1), epoch(2, train=9), epoch(3, train=9), epoch(2, train=7)]
    found = read_log("\n".join(map(json.dumps, lines)))
    assert [(one["epoch"], one["train"]) for one in found] == [(1, 8.0), (2, 7)]


def test_a_loss_that_does_not_change_is_drawn() -> None:
    flat = [epoch(number) | {"valid": 8.0, "valid_by_family": dict.fromkeys(FAMILIES, 2.0)} for number in (1, 2, 3)]
    pixels = np.asarray(picture(flat, "run"))
    rows = columns(pixels, COLOURS[1], (120, 130, 735, 620))  # valid, drawn over train
    assert np.ptp(rows) <= 2


def test_what_was_there_stays_when_the_log_is_none(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"before")
    (tmp_path / "log.jsonl").write_text("{broken")
    with pytest.raises(ValueError, match="Expecting"):
        draw(tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"before"


@pytest.mark.parametrize("span", [1e-9, 0.003, 0.7, 1, 19, 20, 21, 1e6])
def test_marks_are_round_and_few(span: float) -> None:
    step = _step(span, most=6)
    assert span / step <= 6.001
    assert f"{step:.0e}"[0] in "125"
    assert span / step > 2
