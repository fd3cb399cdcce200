"""English that a reader need not translate: phrases that we keep slipping into, and their better."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COUNTED = (
    "bits|bytes|kB|MB|nats|ms|chords?|clips?|forks?|ids?|lines?|logits|megabytes?|minutes?|notes?|numbers|pieces?|process(?:es)?|"
    "plans?|positions?|rows?|sample|samples|seconds?|steps?|sub-folders?|tasks?|threads?|times|values?|windows?|words?"
)
EACH = (
    "batch|beat|bar|call|clip|core|emotion|epoch|family|file|frame|hour|key|line|listener|minute|note|optimizer step|"
    "origin|page|piece|process|quadrant|row|run|second|song|split|step|token|training run|window"
)

BANNED = {
    rf"\b(?:{COUNTED}) an? (?:{EACH})\b": "'per': nats per note",
    r"\bso many\b": "the number, or 'this many'",
    r"\banew\b": "'again', or 'from the beginning'",
    r"\bof (?:its|their|one's|his|her|every \w+'s) own\b": "'its own ...', 'separate'",
    r"\b(?:is|are|be|been|was|were) told (?!apart)": "say what it receives or knows",
    r"\bcannot be meant\b": "usage error",
    r"\bgoes? on from\b": "resumes from, continues",
    r"\bwhat no one learns\b": "fixed",
    r"\bby heart\b": "overfits, memorises",
    r"\bin the place of\b": "replace ... with ...",
}
"""What is banned, as a pattern, and what to write instead."""

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "emogen").rglob("*.md")]
)
MODULES = sorted([*(ROOT / "emogen").rglob("*.py"), ROOT / "docs" / "make.py"])


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of what people read in a file; of a module its strings and comments."""
    if path.suffix != ".py":
        yield 1, path.read_text(encoding="utf-8")
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    comments: list[tuple[int, str]] = []
    below = (0, 0)  # where a comment would go on: the line after the last one, and its column
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                words = token.string.lstrip("# ")
                if token.start == below:
                    comments[-1] = (comments[-1][0], f"{comments[-1][1]}\n{words}")
                else:
                    comments.append((token.start[0], words))
                below = (token.start[0] + 1, token.start[1])
    yield from comments


def slips(path: Path) -> list[str]:
    """Where a file says what is banned: place, words, advice."""
    found = []
    for line, text in prose(path):
        for pattern, better in BANNED.items():
            for match in re.finditer(pattern.replace(" ", r"\s+"), text, re.IGNORECASE):
                at = line + text.count("\n", 0, match.start())
                words = re.sub(r"\s+", " ", match[0])
                found.append(f"{path.relative_to(ROOT)}:{at}: '{words}' (better: {better})")
    return sorted(set(found))


@pytest.mark.parametrize("path", [*PAGES, *MODULES], ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_has_to_translate(path: Path) -> None:
    assert not slips(path)


@pytest.mark.parametrize(
    "words",
    [
        '"""Nats a note."""',
        'x = 1  # so many\nmessage = f"{x} notes a second"',
        'raise ValueError("it is told\\nthe emotion")',
        "x = 1  # begins\n# anew here",
        'help = "an order of its own"',
    ],
)
def test_a_slip_is_found_wherever_it_stands(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_english.ROOT", tmp_path)
    file = tmp_path / "module.py"
    file.write_text(words, encoding="utf-8")
    assert slips(file)
    file.write_text('"""Nats per note; a second one."""\n', encoding="utf-8")
    assert not slips(file)
