"""``python -m tests.fuzz --minutes 1``: damaged and hostile files of every kind, until the time is up.

Each case is made from its own seed, and runs in a process that may take a gigabyte more than it has and ten seconds. It
is *read* (and then it can be used), *refused* (an error of ours, in one line), or a *fault*: any other exception, a
crash, a hang. The seed of every fault is printed; ``--seed N --kind K --cases 1`` makes that case again. Whoever mends
a fault makes it a case of ``test_hostile``.
"""

# ruff: noqa: T201 - this is a command, and speaks to people

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

MOST_MEMORY = 2**30
"""Bytes of address space that a case may add to what its process has."""
MOST_SECONDS = 10
CHUNK = 50
"""Cases that one process runs, so that what one of them breaks does not reach far."""

Random = np.random.Generator
Try = Callable[[Random, Path], None]
"""Makes a case in a folder and uses it: returns where it can be used, raises an EmogenError where it is refused."""


class Fault(Exception):
    """What was read is not what was written, or cannot be used."""


# ---- how files are changed


def mutated(rng: Random, content: bytes) -> bytes:
    """Content with bits turned, bytes set, and stretches cut, doubled, zeroed or moved."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        if not data:
            return bytes(rng.integers(0, 256, 20, dtype=np.uint8))
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 1 + min(64, len(data))))
        match int(rng.integers(7)):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * int(rng.integers(1, 9))
            case 4:
                data[at : at + length] = bytes(length)
            case 5:
                data[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
            case 6:
                del data[at:]
    return bytes(data)


ODD: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 10**30, 0.5, -0.0, 1e38, math.nan, math.inf, "", "\x1b[2J", "ü\ud800", "9" * 5000,
    [], [[]], {}, {"": []}, [math.nan], "happy", [5],
]  # fmt: skip
"""Values that stand where another was meant."""


def changed(rng: Random, tree: Any) -> Any:
    """A tree of dicts, lists and plain values with one part replaced by an odd one, removed or doubled."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = list(tree)[int(rng.integers(len(tree)))]
        kept = {name: value for name, value in tree.items() if name != key}
        return kept if rng.random() < 0.1 else tree | {key: changed(rng, tree[key])}
    if isinstance(tree, list | tuple) and tree and rng.random() < 0.85:
        at, row = int(rng.integers(len(tree))), list(tree)
        return row[:at] + row[at + 1 :] if rng.random() < 0.1 else [*row[:at], changed(rng, row[at]), *row[at + 1 :]]
    return ODD[int(rng.integers(len(ODD)))]


def midi(rng: Random) -> bytes:
    """A MIDI file with notes, pedal and tempo changes, or one of the cases."""
    from tests.midi_files import midi as smf
    from tests.midi_files import note, pedal, tempo, text, track

    notes = [note(t, t + int(rng.integers(1, 900)), int(rng.integers(128))) for t in range(0, 4000, 100)]
    pedals = [pedal(int(t), int(rng.choice([0, 127]))) for t in rng.integers(0, 4000, 6)]
    made = text(0, json.dumps({"emogen": "1", "emotion": {"sad": 1}, "seconds": 4, "seed": 1}).encode())
    return smf(track(made, *notes, *pedals, tempo(900, 400_000)))


# ---- the kinds


def try_midi(rng: Random, folder: Path) -> None:
    """A damaged MIDI file is shown, judged and encoded, or refused."""
    from emogen.composing.piece import Piece
    from emogen.composing.provenance import facts, title

    file = folder / "case.mid"
    file.write_bytes(mutated(rng, midi(rng)))
    piece = Piece.read(file)
    facts(piece.made_by, piece.measures())
    title(piece.made_by, piece.measures(), file.stem).encode()
    piece.judge()


def try_manifest(rng: Random, folder: Path) -> None:
    """A MIDI file that says something odd of what made it becomes a page all the same."""
    from emogen.composing.piece import Piece
    from emogen.composing.provenance import facts, title
    from tests.midi_files import midi as smf
    from tests.midi_files import note, text, track

    says = changed(
        rng, {"emogen": 1, "emotion": {"sad": 0.5, "calm": 0.5}, "seconds": 4, "seed": 1, "plan": {"mode": 1}}
    )
    file = folder / "case.mid"
    file.write_bytes(smf(track(text(0, json.dumps(says).encode()), *[note(t, t + 90) for t in range(0, 1000, 100)])))
    piece = Piece.read(file)
    (title(piece.made_by, piece.measures(), "x") + str(facts(piece.made_by, piece.measures()))).encode()


def try_checkpoint(rng: Random, folder: Path) -> None:
    """A checkpoint with other bytes, or that says other things of itself, composes or is refused."""
    from emogen.model.checkpoint import WEIGHTS
    from tests import tiny
    from tests.hostile import change_header

    path = tiny.save(folder)
    file = path / WEIGHTS

    def change(header: dict[str, Any], meta: dict[str, Any]) -> None:
        if rng.random() < 0.3:
            tensors = {name: header.pop(name) for name in list(header) if name != "__metadata__"}
            found = changed(rng, tensors)
            header.update(found if isinstance(found, dict) else {})
        else:
            found = changed(rng, meta)
            meta.clear()
            meta.update(found if isinstance(found, dict) else {"format": found})

    match int(rng.integers(3)):
        case 0:
            file.write_bytes(mutated(rng, file.read_bytes()))
        case 1:
            change_header(file, change)
        case 2:
            body = bytearray(file.read_bytes()[8 + struct.unpack("<Q", file.read_bytes()[:8])[0] :])
            numbers = np.frombuffer(body, "<f4").copy()
            numbers[rng.integers(0, len(numbers), 40)] = rng.choice([0, np.nan, np.inf, 1e38, -1e38, 1e-40])
            change_header(file, lambda _, meta: meta.update(checksums={}), numbers.tobytes())
    compose_with(file)


def compose_with(file: Path) -> None:
    """Show a checkpoint, and compose two seconds with it."""
    from emogen.cli.ckpt import sparkline
    from emogen.composing.generate import generate
    from emogen.composing.wish import Wish
    from emogen.model.checkpoint import plans_of, read_meta
    from emogen.model.opening import open_network
    from emogen.settings import SampleSettings

    meta = read_meta(file)
    sparkline([loss.valid for loss in meta.history])
    network, plans = open_network(file, meta), plans_of(file, meta)
    (piece,) = generate(network, plans, [Wish({"happy": 1.0}, 5, 1, {})], SampleSettings())
    if piece.end_ms != 5000:
        raise Fault(f"a piece of {piece.end_ms} ms")


def trained(folder: Path) -> Path:
    """The last checkpoint of a training that was stopped after two steps; made once for each process."""
    from emogen.training import shelf
    from tests.training import Notebook, new_trainer

    runs = Path(os.environ["FUZZ_ONCE"]) / "runs"
    if not runs.exists():
        new_trainer(runs).learn(Notebook(2, lambda: signal.raise_signal(signal.SIGINT)))
    shutil.copytree(runs, folder / "runs")
    return shelf.resumable(folder / "runs" / "tiny" / "checkpoints")[0]


def try_trainer(rng: Random, folder: Path) -> None:
    """A trainer's state is resumed as it was saved, or refused; and what goes on is numbers."""
    import torch

    from emogen.model.checkpoint import TRAINER, load_trainer
    from tests.hostile import forget_checksums
    from tests.training import Notebook, new_trainer

    path = trained(folder)
    before = load_trainer(path)
    signed = rng.random() < 0.3
    if not signed:
        forget_checksums(path)
    if rng.random() < 0.4:
        (path / TRAINER).write_bytes(mutated(rng, (path / TRAINER).read_bytes()))
    else:
        state = load_trainer(path)
        if rng.random() < 0.3:
            state = changed(rng, state)
        else:
            moments = state["optimizer"]["state"]
            one = moments[int(rng.integers(len(moments)))]
            name = str(rng.choice(list(one)))
            one[name] = odd_tensor(rng, one[name])
        torch.save(state, path / TRAINER)
    trainer = new_trainer(folder / "runs")
    trainer.resume(path)
    if signed and not same(trainer.optimizer.state_dict()["state"], before["optimizer"]["state"]):
        raise Fault("a state with a checksum was resumed as another one")
    trainer.learn(Notebook(1, lambda: signal.raise_signal(signal.SIGINT)))
    if not trainer.model.is_finite():
        raise Fault("weights that are no numbers")


def same(one: Any, other: Any) -> bool:
    """Whether two states hold the same numbers."""
    import torch

    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other)


def odd_tensor(rng: Random, own: Any) -> Any:
    """A tensor that is like another in all but one thing."""
    import torch

    odd: list[Callable[[], Any]] = [
        lambda: torch.zeros(1), lambda: torch.zeros(0), lambda: own.double(), lambda: own.int(),
        lambda: own * torch.nan, lambda: own - torch.inf, lambda: -1 - own.abs(), lambda: own[None],
        lambda: own.reshape(-1),
        lambda: own.new_zeros(()).expand(own.shape), lambda: own.to_sparse(), lambda: own.tolist(), lambda: None,
        lambda: own.bfloat16(), lambda: own + 0j, lambda: own.new_zeros(()).expand(10**6, 10**6), lambda: own,
        lambda: own.T if own.ndim > 1 else own,
    ]  # fmt: skip
    return odd[int(rng.integers(len(odd)))]()


def try_cache(rng: Random, folder: Path) -> None:
    """A prepared corpus is opened as it was written, or refused, and then prepare mends it."""
    from emogen.data.corpus import CLIPS, MANIFEST, NOTES, open_corpus
    from emogen.data.prepare import prepare
    from emogen.errors import EmogenError
    from emogen.settings import DataSettings
    from tests.midi_files import dataset

    once = Path(os.environ["FUZZ_ONCE"]) / "source"
    if not once.exists():
        dataset(once)
    home = folder / "data"
    report = prepare(once, home, DataSettings(workers=1))
    notes = (report.directory / NOTES).read_bytes()
    file = report.directory / str(rng.choice([NOTES, CLIPS, MANIFEST]))
    if file.name == MANIFEST and rng.random() < 0.5:
        file.write_text(json.dumps(changed(rng, json.loads(file.read_text()))))
    else:
        file.write_bytes(mutated(rng, file.read_bytes()))
    if rng.random() < 0.2:
        (home / "current").write_bytes(mutated(rng, (home / "current").read_bytes()))
    try:
        corpus = open_corpus(home)
        if corpus.tokens.tobytes() != notes or corpus.manifest != report.manifest:
            raise Fault("a damaged corpus was opened")
    except EmogenError:
        prepare(once, home, DataSettings(workers=1))
        if open_corpus(home).tokens.tobytes() != notes:
            raise Fault("prepare did not mend it") from None
        raise


def try_list(rng: Random, folder: Path) -> None:
    """A list of files and emotions, saved by whatever spreadsheet."""
    from emogen.data.sources import find

    for number in range(3):
        (folder / f"{number}.mid").write_bytes(b"MThd")
    separator = str(rng.choice([",", ";", "\t", "|"]))
    rows = [["path", "emotion", "song"], ["0.mid", "happy", "a"], ["1.mid", "Q3", "b"], ["./2.mid", "Sad ", "c"]]
    text = "\n".join(separator.join(row) for row in rows)
    content = text.encode(str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"])))
    (folder / "list.csv").write_bytes(mutated(rng, content))
    find(folder / "list.csv", bool(rng.random() < 0.3))


def try_zip(rng: Random, folder: Path) -> None:
    """A damaged or odd archive of labelled files."""
    from emogen.data.sources import find, opened
    from emogen.errors import UnusableFile
    from emogen.music.midi import read_piece

    names = ["happy/a.mid", "sad/b.mid", "../c.mid", "/d.mid", "C:\\calm\\e.mid", "", ".mid", "calm//f.mid",
             "label.csv", "x" * 300 + "/happy/g.mid", "happy/\x1b[2J.mid", "happy/", "happy/a.mid"]  # fmt: skip
    with zipfile.ZipFile(folder / "case.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in rng.choice(names, int(rng.integers(1, 6))):
            kind = int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2]))
            info = zipfile.ZipInfo(str(name) or "empty")
            info.filename = str(name)
            archive.writestr(info, mutated(rng, midi(rng)) if rng.random() < 0.8 else bytes(10**7), kind)
    if rng.random() < 0.6:
        (folder / "case.zip").write_bytes(mutated(rng, (folder / "case.zip").read_bytes()))
    source = find(folder / "case.zip", bool(rng.random() < 0.5))
    with opened(source.root, source.in_zip) as read:
        for file in source.files:
            try:
                read_piece(read(file.name))
            except UnusableFile:
                continue


def try_font(rng: Random, folder: Path) -> None:
    """A damaged SoundFont plays two notes, or is refused."""
    from emogen.sound.regions import Gen
    from emogen.sound.render import PROBE
    from emogen.sound.soundfont import SoundFont
    from tests.soundfonts import soundfont

    zones = [
        [(Gen(int(rng.choice(list(Gen)))), int(rng.integers(-32_768, 32_768))) for _ in range(int(rng.integers(4)))]
        for _ in range(int(rng.integers(1, 40)))
    ]
    moved = [(int(rng.integers(1 << 12)), Gen(int(rng.choice(list(Gen)))), int(rng.integers(-9_000, 9_000)), 0)]
    file = soundfont(folder / "case.sf2", *zones, moved=moved, compressed=bool(rng.random() < 0.3))
    if rng.random() < 0.7:
        file.write_bytes(mutated(rng, file.read_bytes()))
    sound = SoundFont(file).play(PROBE)
    if not np.isfinite(sound).all():
        raise Fault("a sound that is no numbers")


def try_settings(rng: Random, folder: Path) -> None:
    """A settings file with anything in it."""
    from emogen.settings import load

    options = ["[train]", "epochs = 3", "learning_rate = 1e-3", "[paths]", 'runs = "~/x"', "[model]", 'size = "tiny"',
               "n_heads = 4", "dropout = nan", "x = " + "[" * int(rng.integers(1, 3000)), "epochs = 0x" + "f" * 9000,
               "[sample]", "top_p = inf", "[[train]]", "train.epochs = 3", 'home = "\\u0000"', 'home = "~nobody/x"',
               "a" + ".a" * 2000 + " = 1"]  # fmt: skip
    text = "\n".join(str(one) for one in rng.choice(options, int(rng.integers(1, 8))))
    content = text.encode() if rng.random() < 0.5 else mutated(rng, text.encode())
    Path("emogen.toml").write_bytes(content)
    load()


def try_ear(rng: Random, folder: Path) -> None:
    """A damaged ear judges, or is refused."""
    from emogen.ear.fitted import BUNDLED, PROBE, Ear

    file = folder / "ear.safetensors"
    raw = BUNDLED.read_bytes()
    if rng.random() < 0.4:
        file.write_bytes(mutated(rng, raw))
    else:
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        known = changed(rng, json.loads(header["__metadata__"]["ear"]))
        header = header | {"__metadata__": {"ear": json.dumps(known)}} if rng.random() < 0.5 else changed(rng, header)
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    (heard,) = Ear.load(file).opinions([PROBE])
    if not all(map(math.isfinite, (*heard.chance.values(), heard.arousal, heard.valence, heard.coherence))):
        raise Fault("an opinion that is no number")


def try_log(rng: Random, folder: Path) -> None:
    """A run's log is mended, so that its curves can be drawn."""
    from emogen.settings import Settings
    from emogen.training.curves import read_log
    from emogen.training.run import Run

    run = Run(folder, "run")
    run.checkpoints.mkdir(parents=True)
    lines = [json.dumps({"epoch": epoch, "train": 9.0, "valid": 9.0}) for epoch in range(1, 6)]
    (run.folder / "log.jsonl").write_bytes(mutated(rng, "\n".join(lines).encode()))
    run.begin(Settings())
    read_log((run.folder / "log.jsonl").read_text(encoding="utf-8"))


KINDS: dict[str, Try] = {
    name.removeprefix("try_"): function for name, function in list(globals().items()) if name.startswith("try_")
}


# ---- the processes


def work(kind: str, first: int, cases: int, told: Any) -> None:
    """Run some cases and tell of each: its seed when it begins, what came of it when it ends."""
    from emogen.errors import EmogenError

    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    with TemporaryDirectory() as once:
        os.environ["FUZZ_ONCE"] = once
        limited = False
        for seed in range(first, first + cases):
            told.send((seed, "begins", ""))
            with TemporaryDirectory() as folder:
                os.chdir(folder)
                try:
                    KINDS[kind](np.random.default_rng([seed, sum(kind.encode())]), Path(folder))
                    result, why = "read", ""
                except EmogenError as error:
                    result, why = (
                        ("fault", f"an error of several lines: {error}") if "\n" in str(error) else ("refused", "")
                    )
                except BaseException:
                    result, why = "fault", traceback.format_exc(limit=-4)
                os.chdir("/")
            told.send((seed, result, why))
            if not limited:  # what the libraries take for themselves is there by now
                size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (size + MOST_MEMORY, size + MOST_MEMORY))
                limited = True


def run(kind: str, first: int, cases: int, counts: Counter[str], until: float) -> int:
    """Run cases of a kind in a process of their own; returns how many were begun. Faults are printed."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=work, args=(kind, first, cases, theirs))
    process.start()
    theirs.close()
    seed, result = first - 1, "read"
    busy_s = MOST_SECONDS * (1 + os.getloadavg()[0] / (os.cpu_count() or 1))  # others want the cores too
    patience_s = 12 * busy_s
    try:
        while time.monotonic() < until or result == "begins":
            if not ours.poll(patience_s):
                print(f"fault: {kind} --seed {seed}: hangs", flush=True)
                counts["fault"] += 1
                break
            seed, result, why = ours.recv()
            patience_s = (
                12 * MOST_SECONDS if seed == first else MOST_SECONDS * (1 + os.getloadavg()[0] / (os.cpu_count() or 1))
            )
            counts[result] += 1
            if result == "fault":
                print(f"fault: {kind} --seed {seed}\n{why}", flush=True)
    except EOFError:
        process.join()
        if result == "begins":
            print(f"fault: {kind} --seed {seed}: the process ended with {process.exitcode}", flush=True)
            counts["fault"] += 1
    process.kill()
    process.join()
    return max(1, seed - first + 1)


def main() -> None:
    """Try all kinds in turn until the time is up, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=CHUNK, help="cases of a kind before the next one's turn")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind (more than one may be given)")
    wanted = parser.parse_args()
    kinds = wanted.kind or list(KINDS)
    os.environ["OMP_NUM_THREADS"] = "1"
    if {"trainer", "checkpoint"} & set(kinds):
        import tests.training  # noqa: F401 - once, before the processes are forked
    until = time.monotonic() + 60 * wanted.minutes
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    following = dict.fromkeys(kinds, wanted.seed)
    once = wanted.cases != CHUNK
    while time.monotonic() < until:
        for number, kind in enumerate(kinds):
            share_s = (until - time.monotonic()) / (len(kinds) - number)
            turn_ends = until if once else time.monotonic() + max(share_s, 0)
            following[kind] += run(kind, following[kind], wanted.cases, counts[kind], turn_ends)
        if once:
            break
    print(f"{'kind':<12}{'tried':>8}{'read':>8}{'refused':>8}{'faults':>8}")
    for kind, found in counts.items():
        tried = found["read"] + found["refused"] + found["fault"]
        print(f"{kind:<12}{tried:>8}{found['read']:>8}{found['refused']:>8}{found['fault']:>8}")
    sys.exit(any(found["fault"] for found in counts.values()))


if __name__ == "__main__":
    main()
