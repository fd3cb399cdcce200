"""``python -m benchmarks.prepare [FILES ...]``: speed and memory of ``emogen prepare`` as the number of files grows.

The files are EMOPIA's (made ones where it is absent), again and again under other song names. Each copy gets a
track with one more note of its own, two minutes in, because files with the same notes would be left out. The whole
command is timed, start included; peak memory is the resident set's (VmHWM), for the command and for the largest of
its workers, which share a part of it with the command.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.midi_files import note, track, tune

ROOT = Path(__file__).parents[1]
EMOPIA = Path(os.environ.get("EMOGEN_TEST_DATA", ROOT.parent / "shared")) / "EMOPIA_1.0" / "midis"


def replicate(folder: Path, files: int) -> None:
    """Fill a folder with so many files, no two with the same notes."""
    originals = sorted(EMOPIA.glob("*.mid"))
    contents = [path.read_bytes() for path in originals] or [tune(seed, 250) for seed in range(1000)]
    quadrants = [path.name[1] for path in originals] or [str(seed % 4 + 1) for seed in range(1000)]
    for number in range(files):
        copy, at = divmod(number, len(contents))
        data = bytearray(contents[at])
        data[10:12] = (int.from_bytes(data[10:12], "big") + 1).to_bytes(2, "big")  # one track more
        start = 120 * 768  # EMOPIA's ticks a second are 768
        data += track(note(start, start + 50, 21 + copy % 88, 20 + 8 * (copy // 88)))
        (folder / f"Q{quadrants[at]}_{copy:05}-{at // 3:05}_{at % 3}.mid").write_bytes(data)


def peak_mib(pid: int) -> float:
    """Largest resident set so far; 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def measure(source: Path, home: Path) -> tuple[float, float, float]:
    """Seconds of the whole command, peak MiB of it and of its largest worker."""
    command = [sys.executable, "-m", "emogen", "prepare", str(source), "--home", str(home)]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    own = workers = 0.0
    while process.poll() is None:
        own = max(own, peak_mib(process.pid))
        workers = max([workers, *map(peak_mib, children(process.pid))])
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    errors = process.stderr.read() if process.stderr else ""
    if process.returncode or "left out" in errors:
        sys.exit(f"prepare failed or left files out:\n{errors}")
    return seconds, own, workers


def main() -> None:
    """Print a line for each number of files."""
    kind = "EMOPIA's files" if EMOPIA.is_dir() else "made files"
    print(f"{kind}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print(f"{'files':>8} {'seconds':>8} {'files/s':>8} {'command MiB':>12} {'worker MiB':>11}")
    for files in [int(word) for word in sys.argv[1:]] or [1_000, 10_000, 100_000]:
        with TemporaryDirectory() as folder:
            source = Path(folder, "music")
            source.mkdir()
            replicate(source, files)
            seconds, own, workers = measure(source, Path(folder, "home"))
        print(f"{files:8,} {seconds:8.1f} {files / seconds:8.0f} {own:12.0f} {workers:11.0f}", flush=True)


if __name__ == "__main__":
    main()
