from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emogen import settings
from emogen.cli import main
from emogen.data import download, prepare
from emogen.data.corpus import open_corpus
from tests.midi_files import dataset, tune, zip_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``emogen prepare`` in an empty folder, with its data in ``home``: exit code, standard output, standard error."""
    monkeypatch.setattr(settings, "user_config_path", lambda *_, **__: tmp_path / "config")
    monkeypatch.setenv("EMOGEN_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["prepare", *map(str, arguments)])
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return call


def test_prepare_says_what_it_made_and_what_comes_next(run: Run, tmp_path: Path) -> None:
    code, out, err = run(dataset(tmp_path / "made"))
    lines = [line.split() for line in err.splitlines()]
    assert (code, out) == (0, "")
    assert ["split", "emotion", "clips", "songs", "notes", "hours"] in lines
    assert ["all", "24", "12", "576"] in [line[:-1] for line in lines]
    assert lines[-1] == ["next:", "emogen", "train"]
    assert "left out" not in err
    assert open_corpus(tmp_path / "home" / "data").manifest.name == "made"


def test_prepare_of_a_second_corpus_says_which_one_commands_took_before(run: Run, tmp_path: Path) -> None:
    first = run(dataset(tmp_path / "made"))[2]
    before = next((tmp_path / "home" / "data").glob("made-*")).name
    _, _, err = run(dataset(tmp_path / "other", 4))
    assert "from now on" not in first
    assert f"train and judge --fit take it from now on; before, {before}: --data {before}" in err
    assert "from now on" not in run(tmp_path / "other")[2]


def test_prepare_says_when_there_was_nothing_to_do(run: Run, tmp_path: Path) -> None:
    source = dataset(tmp_path / "made")
    run(source)
    _, _, err = run(source)
    assert "prepared already" in err
    assert "reading files" not in err
    _, _, err = run(source, "--force")
    assert "reading files" in err


def test_json_is_all_that_goes_to_standard_output(run: Run, tmp_path: Path) -> None:
    source = dataset(tmp_path / "made")
    (source / "midis" / "Q1_AAAAAAAAAAA_0.mid").write_bytes(b"")
    code, out, _ = run(source, "--json", "--name", "mine", "--split-seed", "3")
    facts = json.loads(out)
    assert code == 0
    assert facts["directory"].startswith(str(tmp_path / "home" / "data" / "mine-"))
    assert (facts["name"], facts["already_there"], facts["settings"]["split_seed"]) == ("mine", False, 3)
    assert facts["left_out"] == [["midis/Q1_AAAAAAAAAAA_0.mid", "empty file"]]


def test_every_file_left_out_is_told_or_counted(run: Run, tmp_path: Path) -> None:
    source = dataset(tmp_path / "made")
    for number in range(25):
        (source / "midis" / f"Q1_[b]bad__{number:03}_0.mid").write_bytes(b"")
    code, _, err = run(source)
    told = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert code == 0
    assert told[0] == "left out: midis/Q1_[b]bad__000_0.mid: empty file"
    assert len(told) == 21
    assert told[-1].startswith("left out: 5 more, all in ")


@pytest.mark.parametrize("songs", [1, 2, 3])
def test_training_is_named_next_where_there_are_songs_enough(run: Run, tmp_path: Path, songs: int) -> None:
    code, _, err = run(dataset(tmp_path / "made", songs=songs))
    last = err.splitlines()[-1]
    assert code == 0
    assert last == ("next: emogen train" if songs == 3 else "training takes 3 songs or more: add some")


def test_a_source_of_unusable_files_alone_is_one_line_with_their_reasons(run: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../a.mid", tune())
    for more in ((), ("--emotion", "none")):
        code, out, err = run(tmp_path / "bad.zip", *more)
        assert (code, out) == (1, "")
        assert err.splitlines() == [
            f"error: no usable music in {tmp_path}/bad.zip",
            "hint: a name that points outside the archive (1x)",
        ]


def test_files_without_labels_are_taken_when_asked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for number in range(3):
        (tmp_path / "plain" / f"{number}.mid").write_bytes(tune(number))
    code, _, err = run(tmp_path / "plain")
    assert code == 1
    assert "--emotion none" in err
    code, _, err = run(tmp_path / "plain", "--emotion", "none")
    assert code == 0
    assert open_corpus(tmp_path / "home" / "data").emotion.tolist() == [-1, -1, -1]


def test_songs_of_another_corpus_are_kept_apart_when_asked_for(run: Run, tmp_path: Path) -> None:
    for number in range(10):
        for folder in ("mine/sad", "more"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / f"{number}.mid").write_bytes(tune(number, notes=60))
    run(tmp_path / "mine")
    mine = open_corpus(tmp_path / "home" / "data")
    held_out = sorted(Path(name).stem for name, split in zip(mine.clip_names, mine.split, strict=True) if split > 0)
    code, out, err = run(tmp_path / "more", "--emotion", "none", "--apart-from", "mine", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["settings"]["apart_from"] == "mine"
    reason = "shares a melody with {} of mine: kept out of training"
    assert facts["remarks"] == [[song, reason.format(f"sad/{song}")] for song in held_out]
    assert held_out
    assert "reading files" in err
    code, out, err = run(tmp_path / "more", "--emotion", "none", "--apart-from", "mine")
    assert (code, out) == (0, "")
    remarked = [line for line in err.splitlines() if line.startswith("remarked: ")]
    assert remarked == [f"remarked: {song}: {reason.format(f'sad/{song}')}" for song in held_out]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "name a source or --download"),
        (("here", "--download"), 2, "name a source or --download"),
        (("here", "--emotion", "happy"), 2, "--emotion none"),
        (("here", "--name", "a/b"), 2, "cannot be a corpus name"),
        (("here", "--split", "random"), 2, "split"),
        (("nowhere",), 1, "no such file or folder: nowhere"),
        (("../plain", "--emotion", "none", "--apart-from", "nothing"), 1, "no prepared corpus 'nothing'"),
    ],
)
def test_what_cannot_be_meant_or_done_is_told_with_a_hint(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "0.mid").write_bytes(tune())
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert message in err
    assert "\nhint: " in err


def test_a_home_that_cannot_be_written_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    code, _, err = run(dataset(tmp_path / "made"))
    assert code == 1
    assert err.startswith("error: ")
    assert "hint: name another folder with --home" in err


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "web").mkdir()
    content = zip_of(dataset(tmp_path / "made"), tmp_path / "web" / "EMOPIA_2.2.zip").read_bytes()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: object) -> None:
            super().__init__(*given, directory=str(tmp_path / "web"))  # type: ignore[arg-type]  # as the server gives it

        def log_message(self, *given: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(download, "EMOPIA_URL", f"http://127.0.0.1:{server.server_port}/EMOPIA_2.2.zip")
        monkeypatch.setattr(download, "EMOPIA_MD5", hashlib.md5(content).hexdigest())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_download_tells_the_licence_first_and_prepares_what_it_fetched(run: Run, tmp_path: Path, served: None) -> None:
    code, _, err = run("--download")
    assert code == 0
    assert "CC BY-NC-SA 4.0" in err.splitlines()[0]
    assert open_corpus(tmp_path / "home" / "data").manifest.name == "EMOPIA_2.2"


def test_a_download_with_another_checksum_is_told_and_removed(
    run: Run, tmp_path: Path, served: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "EMOPIA_MD5", "0" * 32)
    code, _, err = run("--download")
    assert code == 1
    assert "not EMOPIA 2.2" in err
    assert "hint: try again" in err
    assert not list((tmp_path / "home" / "data").iterdir())


def test_ctrl_c_ends_with_130_and_nothing_half_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_encode", interrupted)
    code, _, err = run(dataset(tmp_path / "made"))
    assert code == 130
    assert "Traceback" not in err
    assert [path.name for path in (tmp_path / "home" / "data").iterdir() if path.name != ".lock"] == []


def test_prepare_imports_neither_torch_nor_pretty_midi() -> None:
    code = "import sys, emogen.cli.prepare; assert not {'torch', 'pretty_midi'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
