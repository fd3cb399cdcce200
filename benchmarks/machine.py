"""What the benchmarks share: engines timed in turns, what the machine is and can do, and how a report looks.

Run as a script it times a whole command, see ``whole_command``; torch is imported only where it is needed, because a
command's peak memory would begin with that of the process that starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import emogen

PACKAGES = (
    "torch", "numpy", "transformers", "onnxruntime", "onnx", "llama-cpp-python", "x-transformers", "miditok", "symusic"
)  # fmt: skip
ABILITIES = ("avx2", "avx512f", "avx512_vnni", "amx_bf16", "amx_int8")

Engine = Callable[[], float]
"""Does its work once and returns the seconds it took."""
Row = dict[str, Any]


def parser(description: str | None, threads: int) -> argparse.ArgumentParser:
    """The flags that all benchmarks have."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    flags.add_argument(
        "--runs", type=int, default=5, help="rounds, each of which times every engine once (%(default)s)"
    )
    flags.add_argument("--threads", type=int, default=threads, help="threads, or processes (%(default)s)")
    flags.add_argument("--json", action="store_true", help="print the figures as JSON to standard output")
    return flags


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(engines: Mapping[str, Engine], runs: int) -> dict[str, list[float]]:
    """Seconds (runs,) of each engine: A B C, A B C, ..., so that a busy machine is busy for all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(runs):
        for name, engine in engines.items():
            seconds[name].append(engine())
    return seconds


def times_faster(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times longer they take: the median over the rounds, each of which has a ratio of its own."""
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))


def compared(seconds: Mapping[str, Sequence[float]], amount: Mapping[str, float], unit: str) -> list[Row]:
    """A row for each engine: its seconds, how much of ``unit`` it did a second, and how much faster the first is."""
    apiece = {name: [s / amount[name] for s in some] for name, some in seconds.items()}
    ours = next(iter(apiece.values()))
    return [
        {
            "engine": name,
            unit: amount[name],
            "s": statistics.median(some),
            "s_min": min(some),
            "s_max": max(some),
            f"{unit}_per_s": amount[name] / statistics.median(some),
            "emogen_faster": times_faster(ours, apiece[name]),
        }
        for name, some in seconds.items()
    ]


class Report:
    """Tables for people on standard error as they come, and at the end all of them as JSON on standard output."""

    def __init__(self, flags: argparse.Namespace) -> None:
        """``flags`` as ``parser`` makes them."""
        self.as_json, self.runs = flags.json, flags.runs
        self.facts: Row = {**facts(), "threads": flags.threads, "runs": flags.runs}
        self.tables: list[Row] = []
        self.skipped: list[str] = []
        for name, value in self.facts.items():
            text = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
            self.say(f"{name}: {text}")

    def say(self, text: str) -> None:
        """A line for people."""
        print(text, file=sys.stderr, flush=True)

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """A table; rows may lack columns."""
        load = round(os.getloadavg()[0], 1)
        self.tables.append({"title": title, "load": load, "rows": list(rows)})
        self.say(f"\n{title} (load {load})\n{table(rows)}")

    def has(self, what: str, *packages: str) -> bool:
        """Whether the packages of a peer are installed; if not, says how to get them."""
        absent = [package for package in packages if not installed(package)]
        if absent:
            self.skip(what, f"not installed: pip install {' '.join(absent)}")
        return not absent

    def skip(self, what: str, why: str) -> None:
        """Something that is not measured, and what to do about it."""
        self.skipped.append(f"{what}: {why}")
        self.say(f"skipped: {what}: {why}")

    def close(self) -> None:
        """The JSON, if it is wanted."""
        if self.as_json:
            print(json.dumps({"machine": self.facts, "tables": self.tables, "skipped": self.skipped}, indent=1))


def facts() -> Row:
    """The time, the machine, its load, and the versions of what is installed."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    except OSError:
        lines = {}
    cpu = {name.strip(): value.strip() for name, value in lines.items()}
    abilities = [one for one in ABILITIES if one in cpu.get("flags", "").split()]
    versions = {package: found for package in PACKAGES if (found := installed(package))}
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "abilities": " ".join(abilities),
        "cores": os.cpu_count(),
        "cores_allowed": len(affinity(0)) if affinity else os.cpu_count(),
        "system": platform.platform(),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "versions": {"python": platform.python_version(), "emogen": emogen.__version__, **versions},
    }


def installed(package: str) -> str:
    """The version of a package; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text: numbers with three digits that count, to the right."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns] + [[cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    left = [any(isinstance(row.get(column), str) for row in rows) for column in columns]
    return "\n".join(
        "  ".join(
            text.ljust(w) if to_left else text.rjust(w) for text, w, to_left in zip(line, widths, left, strict=True)
        )
        for line in cells
    )


def cell(value: object) -> str:
    """How a value stands in a table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".removesuffix(".")
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def whole_command(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Seconds of a command run in ``folder``, start included, and the peak MiB of its largest process (Linux).

    A process's peak begins with that of the one it was forked from, so a small one stands between.
    """
    from emogen.cli import LIBRARY_ENVIRONMENT

    environment = {name: value for name, value in os.environ.items() if name not in LIBRARY_ENVIRONMENT}
    environment["PYTHONPATH"] = str(Path(emogen.__file__).parents[1])
    launch = [sys.executable, str(Path(__file__)), *words]
    done = subprocess.run(launch, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stderr}")
    seconds, kib = json.loads(done.stdout)
    return seconds, kib / 1024


def commands_in_turns(
    commands: Mapping[str, Sequence[str]], folder: Path, runs: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds (runs,) of each whole command after one that does not count, and the highest peak in MiB."""
    peaks: dict[str, list[float]] = {name: [] for name in commands}

    def run(name: str) -> float:
        seconds, peak = whole_command(commands[name], folder)
        peaks[name].append(peak)
        return seconds

    engines = {name: partial(run, name) for name in commands}
    in_turns(engines, 1)  # the files are in memory from here on
    return in_turns(engines, runs), {name: max(some) for name, some in peaks.items()}


def launch(words: Sequence[str]) -> int:
    """Run a command, print its seconds and peak memory, return its exit code."""
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    print(json.dumps([time.perf_counter() - began, usage.ru_maxrss]))
    return os.waitstatus_to_exitcode(status)


def read_bandwidth(size: int) -> float:
    """Bytes a second at which a buffer of ``size`` bytes is read again and again: a cache's, if it fits one."""
    import torch

    buffer = torch.ones(size // 4)
    return size / min(timed(buffer.sum) for _ in range(30))


def matmul_peak(precision: str = "float32") -> float:
    """Floating-point operations a second of a matrix product of 2048^3; a multiply-add is two."""
    import torch

    a, b = (torch.randn(2048, 2048).to(getattr(torch, precision)) for _ in range(2))
    return 2 * 2048**3 / min(timed(lambda: a @ b) for _ in range(10))


def multiply_adds(model: Any) -> int:
    """Multiply-adds that the weight matrices of a model take for one position: each weight once."""
    import torch

    layers = [layer for layer in model.modules() if not isinstance(layer, torch.nn.Embedding)]
    return sum(layer.weight.numel() for layer in layers if getattr(getattr(layer, "weight", None), "ndim", 0) == 2)


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
