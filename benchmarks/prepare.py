"""``python -m benchmarks.prepare EMOPIA_1.0``: reading a corpus, beside MidiTok's REMI on the same files.

Whole commands in as many processes, start included, both writing what they read; emogen also splits by song, finds
files with the same notes and names emotions. Then its files are prepared again and again under other song names, to
show rate and memory as their number grows. Each copy gets a track with one more note of its own, two minutes in,
because files with the same notes would be left out. Peak memory is the largest process's.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import machine
from benchmarks.machine import Report, commands_in_turns, compared, whole_command
from emogen.data.corpus import open_corpus
from tests.midi_files import note, track

TICKS_A_S = 768
"""Of EMOPIA's files."""


def main() -> None:
    """Print a table for the corpus, and one for its copies."""
    parser = machine.parser(__doc__, threads=os.cpu_count() or 1)
    parser.add_argument(
        "folder", type=Path, nargs="?", default="EMOPIA_1.0", help="EMOPIA, with its midis/ in it (%(default)s)"
    )
    parser.add_argument(
        "--copies", type=int, nargs="*", default=[1_000, 10_000, 100_000], help="also prepare so many files"
    )
    args = parser.parse_args()
    files = sorted(args.folder.resolve().glob("midis/*.mid"))
    if not files:
        parser.error(f"there is no midis/*.mid in {args.folder}")
    with closing(Report(args)) as report, TemporaryDirectory() as folder:
        beside_miditok(args.folder.resolve(), files, args.threads, report, Path(folder))
        rows = [copies(files, count, args.threads) for count in args.copies]
        if rows:
            report.table(f"emogen prepare of copies, processes {args.threads}, one run each", rows)


def prepare_words(source: Path, home: Path, processes: int) -> list[str]:
    """The command, which reads the files even where they are prepared already."""
    words = ["prepare", str(source), "--home", str(home), "--workers", str(processes), "--force"]
    return [sys.executable, "-m", "emogen", *words]


def beside_miditok(source: Path, files: list[Path], processes: int, report: Report, folder: Path) -> None:
    """Whole commands in turns: emogen and MidiTok."""
    commands = {"emogen prepare": prepare_words(source, folder / "home", processes)}
    if report.has("MidiTok's REMI", "miditok"):
        script = str(Path(__file__).with_name("remi.py"))
        commands["MidiTok, REMI"] = [sys.executable, script, str(files[0].parent), str(processes), "tokens.npy"]
    seconds, peak_mib = commands_in_turns(commands, folder, report.runs)
    rows = compared(seconds, dict.fromkeys(commands, len(files)), "files")
    for row in rows:
        row["peak_mib"] = peak_mib[row["engine"]]
    report.table(f"{len(files):,} files of {source.name}, whole commands, processes {processes}", rows)


def replicate(files: list[Path], folder: Path, count: int) -> None:
    """Fill a folder with so many copies of EMOPIA's files, no two with the same notes."""
    contents = [path.read_bytes() for path in files]
    for number in range(count):
        copy, at = divmod(number, len(files))
        data = bytearray(contents[at])
        data[10:12] = (int.from_bytes(data[10:12], "big") + 1).to_bytes(2, "big")  # one track more
        start = 120 * TICKS_A_S
        data += track(note(start, start + 50, 21 + copy % 88, 20 + 8 * (copy // 88)))
        quadrant = files[at].name[:2]
        (folder / f"{quadrant}_{copy:05}-{at // 3:05}_{at % 3}.mid").write_bytes(data)


def copies(files: list[Path], count: int, processes: int) -> dict[str, float]:
    """Rate and memory for so many files."""
    with TemporaryDirectory() as folder:
        source, home = Path(folder, "music"), Path(folder, "home")
        source.mkdir()
        replicate(files, source, count)
        seconds, peak_mib = whole_command(prepare_words(source, home, processes), source)
        corpus = open_corpus(home / "data")
        if len(corpus.clip_names) != count:
            sys.exit(f"prepare left out {len(corpus.manifest.left_out)} of {count} files")
    return {"files": count, "s": seconds, "files_per_s": count / seconds, "peak_mib": peak_mib}


if __name__ == "__main__":
    main()
