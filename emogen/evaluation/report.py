"""Reports of the yardstick: a page that anyone can open, all numbers as JSON, and a table for a paper."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from emogen.emotion import EMOTIONS
from emogen.evaluation.rows import NEEDS_A_MODEL, ROWS, Row
from emogen.evaluation.sections import Report, densities
from emogen.evaluation.systems import CHANCE, LOOSE, OBEDIENT, TEST, System
from emogen.music.notes import Floats, Piece
from emogen.sound import page
from emogen.sound.render import audio, small_mp3
from emogen.system.files import write_text

SAMPLE_S = 12
"""Of each sample on the page."""
WIDTH, HEIGHT = 220, 56
"""Of a picture of distributions."""
COLOURS = ("#3450b8", "#d1470b", "#2a8a57", "#8a3fa0", "#b08900", "#0b8fa6")
PICTURES = (
    "coherence", "pulse", "returns", "chords_per_bar", "triads", "steps", "repeats", "leaps", "notes_per_s", "velocity",
    "pitch", "polyphony", "pitch_class_entropy", "repetition",
)  # fmt: skip
"""The rows whose distributions are drawn."""


def write(file: Path, report: Report, systems: Sequence[System], soundfont: Path | None = None) -> None:
    """Write a report by its suffix: ``.html`` (with samples of the systems' pieces), ``.json`` or ``.tex``."""
    if file.suffix == ".html":
        write_text(file, as_html(report, systems, soundfont))
    elif file.suffix == ".tex":
        write_text(file, as_tex(report))
    else:
        write_text(file, json.dumps(report, indent=1) + "\n")


# ---- LaTeX


def as_tex(report: Report) -> str:
    """A table for a paper: rows as on the page, one column per system, means with half of their 95 % intervals."""
    names = list(report["systems"])
    lines = [
        f"% emogen evaluate {report['emogen']}, {report['data']['name']} {report['data']['fingerprint']}",
        "% means over quadrants, half of the 95 % intervals; needs \\usepackage{booktabs}",
        "\\begin{tabular}{l" + "r" * len(names) + "}",
        "\\toprule",
        " & ".join(["", *map(_tex, names)]) + " \\\\",
        "\\midrule",
    ]
    for row in ROWS:
        cells = [report["systems"][name]["rows"][row.name] for name in names]
        told = [
            f"${one['mean']:{row.form}} \\pm {(one['high'] - one['low']) / 2:{row.form}}$" if one else "--"
            for one in cells
        ]
        lines.append(" & ".join([_tex(row.title), *told]) + " \\\\")
    apart = [report["systems"][name]["told_apart"] for name in names]
    told = [f"${one['share']:.2f} \\pm {(one['high'] - one['low']) / 2:.2f}$" if one else "--" for one in apart]
    lines.append(" & ".join(["told apart from real", *told]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _tex(text: str) -> str:
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(special.get(one, f"\\{one}" if one in "&%$#_{}" else one) for one in text)


# ---- HTML


def as_html(report: Report, systems: Sequence[System], soundfont: Path | None) -> str:
    """A page in one file: the table, what disturbing real clips does, distributions, differences, samples to hear."""
    names = list(report["systems"])
    data = report["data"]
    described = (
        f"{data['name']}, fingerprint {data['fingerprint']}; emogen {report['emogen']}; first {report['seconds']:g} s"
    )
    return page.fill(
        "report.html",
        title=html.escape(f"{', '.join(names[1:])} beside real music"),
        described=html.escape(described),
        remarks="\n".join(_remarks(report)),
        table=_table(report),
        pictures="\n".join(_pictures(report)),
        differences="\n".join(_differences(report)),
        samples="\n".join(_samples(systems, soundfont)),
        report=page.as_json(report),
    )


def _remarks(report: Report) -> Iterator[str]:
    for name, system in report["systems"].items():
        told = [f"{system['pieces']} pieces", *system["remarks"]]
        told += [f"{len(system['left_out'])} files left out"] if system["left_out"] else []
        yield f"<li><strong>{html.escape(name)}</strong>: {html.escape('; '.join(told))}</li>"


def _table(report: Report) -> str:
    names = list(report["systems"])
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in (TEST, "disturbed", *names[1:]))
    unlike = {one["other"]: one["rows"] for one in report["differences"] if one["one"] == TEST}
    rows = []
    for row in ROWS:
        after = report["disturbed"].get(row.name)
        moved = f"{after['mean']:{row.form}}<small>{after['by']}, {after['errors']:+.1f} s.e.</small>" if after else ""
        cells = [_cell(report["systems"][TEST]["rows"][row.name], row), moved]
        for name in names[1:]:
            found = unlike[name][row.name]
            differs = found and (found["low"] > 0 or found["high"] < 0)
            cells.append(("<b>*</b> " if differs else "") + _cell(report["systems"][name]["rows"][row.name], row))
        rows.append((row.title, cells))
    apart = [report["systems"][name]["told_apart"] for name in names]
    cells = [f"{one['share']:.2f}<small>{one['low']:.2f} to {one['high']:.2f}</small>" if one else "-" for one in apart]
    after = report["disturbed"].get("told_apart")
    rows.append(("told apart from real", [cells[0], f"{after['share']:.2f}" if after else "", *cells[1:]]))
    runs = [str(report["systems"][name]["longest_run"]) for name in names]
    rows.append(("longest copied run of notes", [runs[0], "", *runs[1:]]))
    rows += [(title, ["-", "", *["-"] * (len(names) - 1)]) for title in NEEDS_A_MODEL]
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(title)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for title, cells in rows
    )
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _cell(found: dict[str, float] | None, row: Row) -> str:
    if not found:
        return "-"
    return f"{found['mean']:{row.form}}<small>{found['low']:{row.form}} to {found['high']:{row.form}}</small>"


def _pictures(report: Report) -> Iterator[str]:
    """A small picture per row: the distribution of real clips as an area, each system's as a line."""
    names = list(report["systems"])
    keys = (
        f'<span><i style="background: {colour}"></i>{html.escape(name)}</span>'
        for name, colour in zip(names, ("#9a9aa6", *_colours(len(names) - 1)), strict=True)
    )
    yield f'<p class="quiet keys">{"".join(keys)}</p>'
    for row in (row for row in ROWS if row.name in PICTURES):
        values = [np.array(report["systems"][name]["values"][row.name], dtype=np.float64) for name in names]
        some = [one[~np.isnan(one)] for one in values]
        if all(len(one) for one in some):
            yield f"<figure>{_svg(row.title, some)}<figcaption>{html.escape(row.title)}</figcaption></figure>"


def _colours(number: int) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(number)]


def _svg(title: str, values: Sequence[Floats]) -> str:
    at, curves = densities(values)
    inside = (at >= min(map(np.min, values))) & (at <= max(map(np.max, values)))
    at, curves = (at[inside], curves[:, inside]) if inside.sum() > 2 else (at, curves)
    x = (at - at[0]) / max(at[-1] - at[0], 1e-9) * WIDTH
    y = HEIGHT - 12 - curves / curves.max() * (HEIGHT - 16)
    paths = [" ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[::4], row[::4], strict=True)) for row in y]
    bottom = HEIGHT - 12
    shapes = [f'<polygon points="0,{bottom} {paths[0]} {WIDTH},{bottom}" fill="#9a9aa6" fill-opacity=".45"/>']
    shapes += [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        for path, colour in zip(paths[1:], _colours(len(paths) - 1), strict=True)
    ]
    ends = f'<text y="{HEIGHT - 1}">{at[0]:.3g}</text>'
    ends += f'<text x="{WIDTH}" y="{HEIGHT - 1}" text-anchor="end">{at[-1]:.3g}</text>'
    label = html.escape(f"Distribution: {title}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(shapes)}{ends}</svg>'


def _differences(report: Report) -> Iterator[str]:
    """The differences between systems whose interval leaves out 0."""
    titles = {row.name: row for row in ROWS}
    for one in report["differences"]:
        clear = []
        for name, found in one["rows"].items():
            if found and (found["low"] > 0 or found["high"] < 0):
                row = titles[name]
                interval = f"{found['low']:+{row.form}} to {found['high']:+{row.form}}"
                clear.append(f"<li>{html.escape(row.title)}: {found['mean']:+{row.form}} ({interval})</li>")
        pair = html.escape(f"{one['one']} less {one['other']}") + (", paired by file names" if one["paired"] else "")
        told = f"<ul>{''.join(clear)}</ul>" if clear else "<p>no clear difference</p>"
        yield f"<details><summary>{pair}: {len(clear)} rows</summary>{told}</details>"


def _samples(systems: Sequence[System], soundfont: Path | None) -> Iterator[str]:
    """The first piece of each label, to be heard, of the systems that are compared; baselines of real music are not."""
    for system in (one for one in systems if one.name not in (CHANCE, OBEDIENT, LOOSE)):
        parts = []
        for label in sorted(set(system.heard.emotion.tolist()), key=lambda one: (one < 0, abs(one))):
            at = system.heard.emotion.tolist().index(label)
            piece = _beginning(system.heard.pieces[at])
            if len(piece):
                title = f"{EMOTIONS[label] if label >= 0 else f'Q{-label}'}: {system.files[at]}"
                parts.append(page.inline(piece, title, {}, small_mp3(audio(piece, soundfont))))
        yield f'<h3>{html.escape(system.name)}</h3><div class="samples">{"".join(parts)}</div>'


def _beginning(piece: Piece) -> Piece:
    return piece.crop(0, 1000 * SAMPLE_S)
