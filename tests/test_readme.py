from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pretty_midi
import pytest

from emogen.music import notes
from emogen.music.midi import write_piece
from tests.conftest import Run
from tests.music import random_piece

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = {"D_MODEL": "32", "N_LAYERS": "1", "N_HEADS": "2", "CONTEXT_NOTES": "32"}
"""A network that is quick to train: no test is about its music."""


def commands(block: str) -> list[list[str]]:
    """The emogen commands of a block, without comments: their arguments."""
    found = [shlex.split(part, comments=True) for line in block.splitlines() for part in line.split(" && ")]
    return [words[1:] for words in found if words and words[0] == "emogen"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder as EMOPIA's: three clips of each quadrant, of twelve songs."""
    folder = tmp_path / "here" / "EMOPIA_1.0"
    for number in range(12):
        loud = 90 if number % 4 < 2 else 40
        piece = random_piece(number, 40)
        piece = notes.Piece.of(piece.onset_ms, piece.pitch, np.full(len(piece), loud + number), piece.duration_ms)
        write_piece(piece, folder / "midis" / f"Q{number % 4 + 1}_song{number:07d}_0.mid")
    return folder


def block_after(mark: str) -> str:
    return README.partition(f"<!-- {mark} -->")[2].partition("```sh\n")[2].partition("```")[0]


def test_the_first_command_composes_with_nothing_prepared_and_nothing_trained(run: Run) -> None:
    (words,) = commands(block_after("main-command"))
    assert words == ["generate", "--emotion", "happy", "--seconds", "30"]
    code, _, err = run(*words)
    assert code == 0, err
    assert "composing with the bundled voice" in err
    (piece,) = Path().glob("happy_30s_seed*.mid")
    assert pretty_midi.PrettyMIDI(str(piece)).get_end_time() == pytest.approx(30.0, abs=0.1)


@pytest.mark.slow
def test_the_commands_of_the_readme_do_the_main_job(run: Run, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = block_after("main-job")
    for name, value in SMALL.items():
        monkeypatch.setenv(f"EMOGEN_MODEL__{name}", value)
    monkeypatch.setenv("EMOGEN_HOME", str(dataset.parent / "home"))
    monkeypatch.setenv("EMOGEN_TRAIN__THREADS", "1")
    monkeypatch.setenv("EMOGEN_SAMPLE__THREADS", "1")
    names = [words[0] for words in commands(block)]
    assert names[:3] == ["prepare", "train", "generate"]
    assert "--epochs 50" in block
    for words in commands(block.replace("--epochs 50", "--epochs 2")):
        code, _, err = run(*words)
        assert code == 0, err
    (piece,) = dataset.parent.glob("happy_30s_seed*.mid")
    assert pretty_midi.PrettyMIDI(str(piece)).get_end_time() == pytest.approx(30.0, abs=0.1)


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 700


def test_the_readme_has_no_picture_that_a_package_index_could_not_show() -> None:
    assert "![" not in README
    assert "<img" not in README
