"""The pages are true: what they name exists, what they quote is said, what they show is there."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from emogen.cli import app
from emogen.model.checkpoint import VOICES
from emogen.music.midi import read_text
from emogen.settings import LOCAL_CONFIG, OPTIONS, variable

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted(
        [
            ROOT / "README.md",
            ROOT / "CONTRIBUTING.md",
            *(ROOT / "emogen" / "voices").glob("*/CARD.md"),
            ROOT / "benchmarks" / "recipe.md",
            *(ROOT / "docs").glob("*.md"),
        ]
    )
}
EVERY_PAGE = pytest.mark.parametrize("name", PAGES)

OTHERS_FLAGS = {"--nproc-per-node", "--install-completion", "--show-completion", "--minutes", "--quick"}
"""Flags that belong to no command: torchrun's, those of ``emogen`` itself, of ``tests.fuzz`` and ``tests.check``."""


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def in_text(text: str) -> list[str]:
    """What stands in backticks in the text."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def command_lines(text: str) -> list[list[str]]:
    """The words behind ``emogen`` in every command line of a page, in its blocks and in its text."""
    lines = [part for block in blocks(text, "sh") for line in block.splitlines() for part in line.split(" && ")]
    found = []
    for line in [*lines, *in_text(text)]:
        command = re.match(r"(?:[A-Z_]+=\S+ )*(?:torchrun .*-m )?emogen (.*)", line)
        if command:
            words = shlex.split(command[1], comments=True)
            found.append(words[: words.index(">")] if ">" in words else words)
    return found


def flags_of(parameters: list[Any]) -> set[str]:
    return {name for one in parameters for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}


def resolve(words: list[str]) -> tuple[set[str], list[str]]:
    """The flags of the command that some words name, and the words behind it; KeyError where there is none."""
    group: Any = typer.main.get_group(app)
    flags = flags_of(group.params) | OTHERS_FLAGS
    while words and isinstance(group, typer.core.TyperGroup) and not words[0].startswith("-"):
        context = typer.Context(group)
        if words[0] not in group.list_commands(context):
            raise KeyError(words[0])
        group, words = group.resolve_command(context, [words[0]])[1], words[1:]
        flags = flags_of(group.params)
    return flags, words


@cache
def all_flags() -> frozenset[str]:
    group = typer.main.get_group(app)
    found = set(OTHERS_FLAGS) | {"--version"}
    for name in group.list_commands(typer.Context(group)):
        found |= resolve([name])[0]
        real = group.resolve_command(typer.Context(group), [name])[1]
        if isinstance(real, typer.core.TyperGroup):
            for below in real.list_commands(typer.Context(real)):
                found |= resolve([name, below])[0]
    return frozenset(found)


@EVERY_PAGE
def test_every_command_line_of_a_page_names_a_command_and_flags_of_that_command(name: str) -> None:
    for words in command_lines(PAGES[name]):
        try:
            flags, rest = resolve(words)
        except KeyError as error:
            pytest.fail(f"{name}: emogen {' '.join(words)}: there is no command {error}")
        named = {word.partition("=")[0] for word in rest if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
        assert named <= flags, f"{name}: emogen {' '.join(words)}: {named - flags}"


def test_the_command_lines_of_the_pages_are_found() -> None:
    assert ["generate", "--emotion", "happy", "--seconds", "30"] in command_lines(PAGES["README.md"])
    assert len(command_lines(PAGES["docs/training.md"])) > 5
    with pytest.raises(KeyError):
        resolve(["compose"])
    assert "--emotion" not in resolve(["train"])[0]


@EVERY_PAGE
def test_every_flag_a_page_names_is_one(name: str) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", PAGES[name]))
    assert named <= all_flags()


@EVERY_PAGE
def test_every_variable_a_page_names_is_one(name: str) -> None:
    named = set(re.findall(r"\bEMOGEN_[A-Z_]+\b", PAGES[name]))
    assert named <= {"EMOGEN_HOME", *map(variable, OPTIONS)}


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@EVERY_PAGE
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert file.is_file(), f"{name}: {target}"
        assert file.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{name}: {target}"


@EVERY_PAGE
def test_every_file_of_ours_a_page_names_is_there(name: str) -> None:
    named = [
        text for text in in_text(PAGES[name]) if re.fullmatch(r"(emogen|tests|docs|benchmarks)/[\w/.-]+\.\w+", text)
    ]
    missing = [path for path in named if not (ROOT / path).is_file()]
    assert not missing


def test_every_page_is_in_the_index() -> None:
    index = set(re.findall(r"\]\(([\w-]+\.(?:md|ipynb))", PAGES["docs/README.md"]))
    pages = {path.name for pattern in ("*.md", "*.ipynb") for path in (ROOT / "docs").glob(pattern)}
    assert index == pages - {"README.md"}


def test_a_table_row_stands_in_one_place() -> None:
    rows = Counter(
        line
        for name, text in PAGES.items()
        for line in {line for line in text.splitlines() if len(re.findall(r"\d", line)) > 3 and line.startswith("| ")}
    )
    assert not [row for row, count in rows.items() if count > 1]


# Messages: a page may quote only what emogen says.


@cache
def said() -> list[str]:
    """Every text in the source, with ``\\0`` where something is filled in."""
    texts = []
    for path in sorted((ROOT / "emogen").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values]
                texts.append("".join(parts))
    return texts


def is_said(quote: str) -> bool:
    """Whether some text of the source is the quote or holds it, what is filled in (``…``) aside."""
    pattern = ".*".join(re.escape(part) for part in quote.split("…"))
    return any(re.search(pattern, text, re.DOTALL) for text in said())


def quotes() -> list[tuple[str, str]]:
    """Page and message, for all that the pages quote: in block quotes, and in troubleshooting's first column."""
    found = [("docs/troubleshooting.md", quote) for quote in re.findall(r"^\| `(.+?)` \|", TROUBLE, re.MULTILINE)]
    found += [("docs/troubleshooting.md", quote) for quote in re.findall(r"common: `(.+?)`", TROUBLE)]
    for name, text in PAGES.items():
        found += [(name, quote) for quote in re.findall(r"^> `(.+)`$", text, re.MULTILINE)]
    return found


TROUBLE = PAGES["docs/troubleshooting.md"]


@pytest.mark.parametrize(("page", "quote"), quotes())
def test_every_message_that_is_quoted_is_one_that_emogen_prints(page: str, quote: str) -> None:
    assert len(quote.replace("…", "").strip()) > 8, "too short to find"
    assert is_said(quote), page


def test_messages_are_found_and_others_are_not() -> None:
    assert len(quotes()) > 50
    assert is_said("unknown emotion '…'")
    assert not is_said("unknown feeling '…'")
    rows = [
        line for line in TROUBLE.splitlines() if line.startswith("| ") and not line.startswith(("| message", "|---"))
    ]
    assert all(re.match(r"\| `.+?` \| .+ \|$", line) for line in rows)


# What docs/make.py makes.


def make() -> Any:
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs" / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_is_that_of_the_settings() -> None:
    assert PAGES["docs/settings.md"] == make().settings_page(), "python docs/make.py settings"
    for option in OPTIONS:
        assert f"| `{option.partition('.')[2]}` |" in PAGES["docs/settings.md"]
    assert str(LOCAL_CONFIG) in PAGES["docs/settings.md"]


def test_every_picture_is_small_told_in_words_and_needs_no_network() -> None:
    pictures = [(name, *found) for name, text in PAGES.items() for found in re.findall(r"!\[(.*?)\]\((.*?)\)", text)]
    assert {Path(path).suffix for _, _, path in pictures} == {".png", ".svg"}
    for name, words, path in pictures:
        file = (ROOT / name).parent / path
        assert len(words) > 30
        assert file.stat().st_size < 100_000
        if file.suffix == ".svg":
            svg = file.read_text(encoding="utf-8")
            assert "@font-face" not in svg
            assert not re.search(r"(?:href|src|url)\W+https?:", svg)


def test_there_are_pages_to_hear_small_and_made_by_the_commands_that_are_named() -> None:
    hear = ROOT / "docs" / "hear"
    commands = make().HEAR
    assert {path.stem for path in hear.iterdir()} == commands.keys()
    assert sum(path.stat().st_size for path in hear.iterdir()) < 1_000_000
    for name, command in commands.items():
        assert f"[hear/{name}.html](hear/{name}.html): `{command}`" in PAGES["docs/README.md"]
        html = (hear / f"{name}.html").read_text(encoding="utf-8")
        assert re.search(rf"<title>{name.capitalize()} - [A-G][#b]? (major|minor) - 0:20\b", html)
        assert f"seed {command.partition('--seed ')[2].split()[0]}" in html
        assert len(html.partition('id="recording"')[2].partition("</")[0]) > 100_000  # the sound itself


def test_the_scenarios_are_small_and_made_by_the_commands_that_are_named() -> None:
    folder, commands = ROOT / "docs" / "scenarios", make().SCENARIOS
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in commands for kind in ("mid", "html")
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    for name, command in commands.items():
        assert f"```sh\n{command}\n```" in PAGES["docs/scenarios.md"]
        made_by = json.loads(read_text(folder / f"{name}.mid"))
        assert f"--seed {made_by['seed']} " in command
        assert f"--seconds {made_by['seconds']:g} " in command


def test_how_it_works_says_what_every_room_is_for() -> None:
    table = PAGES["docs/how-it-works.md"].partition("| room | what |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` ", table, re.MULTILINE)
    assert sorted(named) == sorted(path.parent.name for path in (ROOT / "emogen").glob("*/__init__.py"))


def test_the_open_voice_brings_the_licence_of_what_it_learnt_from() -> None:
    licence = (VOICES["open"] / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("MIT License")
    assert "Copyright (c) 2020 Music X Lab" in licence


@pytest.mark.parametrize("voice", VOICES)
def test_the_model_cards_have_the_usual_headings(voice: str) -> None:
    headings = set(re.findall(r"^## (.+)$", PAGES[f"emogen/voices/{voice}/CARD.md"], re.MULTILINE))
    assert headings >= {
        "Model details", "Intended use", "Out-of-scope use", "Factors", "Metrics", "Training data", "Evaluation data",
        "Quantitative analyses", "Limits", "Ethical considerations", "Licence",
    }  # fmt: skip
