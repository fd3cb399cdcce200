"""``python -m benchmarks.generate``: composing beside peers and beside what the machine can do at most.

    peers     one step a note, against a GPT-2 of the same shape that takes a step a token
    roofline  the time in which the weights can be read and multiplied, beside the time a note takes
    growth    the time a note takes in longer pieces, and in more of them at once
    command   the whole command with the bundled voice, beside an import of torch

The network is random but for its rhythm, which makes about as many notes a second as EMOPIA has. Who shares the
machine with others can trust the ratios, not the times.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from benchmarks import machine
from benchmarks.machine import Engine, Report, in_turns, timed, times_faster
from benchmarks.peers import Draw, LlamaCpp, OnnxRuntime, flat_tokens, gpt2, hugging_face
from emogen.composing.voice import Voice
from emogen.composing.wish import Wish
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.model import checkpoint
from emogen.model.network import Composer
from emogen.music.tokens import COLUMN, SHIFT_MS
from emogen.settings import SIZES, ModelSettings, SampleSettings
from tests import tiny

NOTES_A_S = 350 / 30
"""Notes a second of EMOPIA's livelier clips; the random network is given about as many."""
RHYTHM_MS = 95
"""Of the exponential distribution that the random network's shifts have: so many notes a second come of it."""


def main() -> None:
    """Print a table for each part."""
    parts = {"peers": peers, "roofline": roofline, "growth": growth, "command": command}
    parser = machine.parser(__doc__, threads=2)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--seconds", type=float, default=30, help="length of a piece (%(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="pieces at once")
    parser.add_argument("--growth", type=float, nargs="+", default=[300, 600], help="lengths of longer pieces, s")
    args = parser.parse_args()
    with closing(Report(args)) as report, TemporaryDirectory() as folder:
        subject = Subject(ModelSettings(size=args.size, dropout=0), args, Path(folder))
        for part in args.parts:
            parts[part](subject, report)


class Subject:
    """The network that composes, opened as the command opens one."""

    def __init__(self, settings: ModelSettings, args: argparse.Namespace, folder: Path) -> None:
        self.settings, self.args, self.folder = settings, args, folder
        torch.manual_seed(0)
        model = Composer(settings)
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.multiply_adds = machine.multiply_adds(model)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.startswith(("gains.", "logits.")):
                    nn.init.normal_(weight, std=0.02)  # these begin as zeros
            model.get_parameter(f"logits.{COLUMN.shift}.bias").sub_(torch.from_numpy(SHIFT_MS / RHYTHM_MS))
        self.path = folder / "random"
        checkpoint.save(self.path, tiny.meta(model), model.state_dict())
        plain = SampleSettings(guidance=1, threads=args.threads)
        int8 = plain.model_copy(update={"precision": "int8"})
        self.samples = {
            "emogen": plain,
            "emogen, guided": SampleSettings(threads=args.threads),
            "emogen, int8": int8,
            "emogen, int8, guided": SampleSettings(precision="int8", threads=args.threads),
        }
        self.voice = Voice.open(str(self.path))
        torch.set_num_threads(args.threads)

    def compose(self, count: int, seconds: float, name: str) -> int:
        """Whole pieces as the command makes them, emotions in turn; returns their notes, the same in every call."""
        sample = self.samples[name]
        wishes = [Wish({EMOTIONS[seed % len(EMOTIONS)]: 1.0}, seconds, seed) for seed in range(count)]
        return sum(len(piece) for piece in self.voice.pieces(wishes, sample))

    def composing(self, count: int, seconds: float, name: str = "emogen") -> tuple[Engine, int]:
        """An engine that composes so many pieces, and their notes; it has done so once, which warms it up."""
        work = partial(self.compose, count, seconds, name)
        return partial(timed, work), work()


def peers(subject: Subject, report: Report) -> None:
    """One piece, 8, 32: notes and seconds of music a second, beside the peers."""
    args = subject.args
    tokens = flat_tokens(round(args.seconds * NOTES_A_S))
    flat = flat_peers(subject, tokens, report)
    for count in args.batches:
        engines: dict[str, Engine] = {}
        notes: dict[str, float] = {}
        for name in subject.samples:
            engines[name], notes[name] = subject.composing(count, args.seconds, name)
        for name, draw in flat.items():
            draw(count, 8)
            engines[name] = partial(timed, partial(draw, count, tokens))
            notes[name] = count * round(args.seconds * NOTES_A_S)
        rows = machine.compared(in_turns(engines, args.runs), notes, "notes")
        for row in rows:
            row["music_s_per_s"] = row["notes_per_s"] / NOTES_A_S
        title = f"{count} x {args.seconds:g} s of music at once, {tokens} flat tokens each, threads {args.threads}"
        report.table(title, rows)


def flat_peers(subject: Subject, tokens: int, report: Report) -> dict[str, Draw]:
    """The peers that are installed, ready for so many tokens."""
    top_p, threads = subject.samples["emogen"].top_p, subject.args.threads
    if not report.has("all peers", "transformers"):
        return {}
    model = gpt2(subject.settings, tokens + 1)
    parameters = sum(weight.numel() for weight in model.parameters())
    report.say(f"parameters: emogen {subject.parameters:,}, flat GPT-2 {parameters:,}")
    found = {f"Hugging Face, {cache} cache": hugging_face(model, cache, top_p) for cache in ("dynamic", "static")}
    if report.has("ONNX Runtime", "onnxruntime", "onnx"):
        found["ONNX Runtime, int8"] = partial(OnnxRuntime(model, threads).draw, top_p=top_p)
    if report.has("llama.cpp", "llama-cpp-python", "gguf"):
        found["llama.cpp, q8_0"] = partial(LlamaCpp(model, threads).draw, top_p=top_p)
    return found


def roofline(subject: Subject, report: Report) -> None:
    """How long a note takes, and how long the machine needs at least for its weights."""
    args, weights = subject.args, subject.multiply_adds
    compose, notes = subject.composing(1, args.seconds)
    compose8, notes8 = subject.composing(1, args.seconds, "emogen, int8")
    engines: dict[str, Engine] = {
        "emogen": lambda: compose() / notes,
        "emogen, int8": lambda: compose8() / notes8,
        "reading int8 weights": lambda: weights / machine.read_bandwidth(weights),
        "reading float32 weights": lambda: 4 * weights / machine.read_bandwidth(4 * weights),
        "multiply-adds, float32": lambda: 2 * weights / machine.matmul_peak(),
    }
    work = (None, None, weights, 4 * weights, 2 * weights)
    seconds = in_turns(engines, args.runs)
    rows = [
        {
            "a note": name,
            "us": statistics.median(some) * 1e6,
            "giga_per_s": amount and amount / statistics.median(some) / 1e9,
            "share_of_emogen": times_faster(seconds["emogen"], some),
            "share_of_int8": times_faster(seconds["emogen, int8"], some),
        }
        for (name, some), amount in zip(seconds.items(), work, strict=True)
    ]
    report.table(f"roofline, threads {args.threads}: {weights:,} weights a note (GB/s, GFLOP/s)", rows)


def growth(subject: Subject, report: Report) -> None:
    """Longer pieces, and more at once, beside one piece."""
    args = subject.args
    sizes = [(1, args.seconds), *((1, length) for length in args.growth)]
    sizes += [(count, args.seconds) for count in args.batches if count > 1]
    engines, notes = {}, {}
    for count, length in sizes:
        name = f"{count} x {length:g} s"
        engines[name], notes[name] = subject.composing(count, length)
    seconds = {name: [s / notes[name] for s in some] for name, some in in_turns(engines, args.runs).items()}
    first = next(iter(seconds.values()))
    rows = [
        {
            "pieces": name,
            "notes": notes[name],
            "us_a_note": statistics.median(some) * 1e6,
            "notes_per_s": 1 / statistics.median(some),
            "time_over_first": times_faster(first, some),
            "rate_over_first": times_faster(some, first),
        }
        for name, some in seconds.items()
    ]
    report.table(f"growth, guidance 1, threads {args.threads}", rows)


def command(subject: Subject, report: Report) -> None:
    """The whole command beside the import that it cannot do without."""
    args = subject.args
    voice = "default"
    try:
        Voice.open(voice)
    except EmogenError as error:
        report.skip("the bundled voice", f"{error}; the random network stands in for it")
        voice = str(subject.path)
    flags = ["--checkpoint", voice, "--out", "music", "--force"]
    words = [sys.executable, "-m", "emogen", "generate", "-e", "happy", "-s", f"{args.seconds:g}", "--seed", "1"]
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "emogen generate": [*words, *flags],
        "emogen generate, int8": [*words, *flags, "--precision", "int8"],
        f"emogen generate, {max(args.batches)} pieces": [*words, *flags, "--count", str(max(args.batches))],
    }
    seconds, peak_mib = machine.commands_in_turns(commands, subject.folder, args.runs)
    bare = seconds["import torch"]
    rows = [
        {
            "command": name,
            "s": statistics.median(some),
            "s_over_import": statistics.median(one - least for one, least in zip(some, bare, strict=True)),
            "peak_mib": peak_mib[name],
        }
        for name, some in seconds.items()
    ]
    title = f"{args.seconds:g} s of music, {Path(voice).name} voice, process start to file, threads as by default"
    report.table(title, rows)


if __name__ == "__main__":
    main()
