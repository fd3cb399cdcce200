from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import emogen.cli
from emogen import __version__, settings
from emogen.cli import COMMANDS, config, main
from emogen.errors import EmogenError, UsageError
from emogen.settings import OPTIONS
from tests.conftest import Run

SUBCOMMANDS = {"ckpt": ("list", "show", "export", "prune"), "config": ("show", "init")}
EVERY_COMMAND = [(name, *more) for name in COMMANDS for more in ((), *((sub,) for sub in SUBCOMMANDS.get(name, ())))]


def modules_after(*calls: tuple[str, ...], cwd: Path) -> list[set[str]]:
    """What a fresh interpreter has imported after each call of ``emogen``, one after the other."""
    code = (
        "import sys, emogen.cli\n"
        f"for call in {calls!r}:\n"
        "    try: emogen.cli.main(call)\n"
        "    except SystemExit: pass\n"
        "    print('\\nMODULES', *sys.modules)"
    )
    root = str(Path(emogen.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    return [set(line.split()) for line in done.stdout.splitlines() if line.startswith("MODULES ")]


def test_help_lists_every_command_in_order(run: Run) -> None:
    for arguments in (["--help"], ["-h"]):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        listed = [line.split()[1] for line in out.partition("Commands")[2].splitlines()[1:] if line.startswith("│ ")]
        assert listed == list(COMMANDS)


def test_no_arguments_print_the_help(run: Run) -> None:
    assert "Commands" in run()[1]


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_every_command_has_help_that_names_each_flag_once(command: tuple[str, ...], run: Run) -> None:
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: emogen {' '.join(command)}" in out
    if command[0] == command[-1]:
        assert COMMANDS[command[0]] in out, "the list of commands and the command say different things"
    options = [line for line in out.splitlines() if re.match(r"│ (\*\s+)?\s*-", line)]
    columns = [re.match(r"│[* ]+((?:--?[a-z][\w-]*\s+)+)", line) for line in options]
    flags = [flag for column in columns if column for flag in column[1].split()]
    assert "--help" in flags
    assert sorted(flags) == sorted(set(flags))
    assert "<bool>" not in out
    helps = [re.split(r"\s{2,}", line.strip("│ "))[-1] for line in options]
    assert not [line for line, text in zip(options, helps, strict=True) if " " not in text or text[0] in "[<"]


def test_the_short_help_flag_works_in_every_depth(run: Run) -> None:
    assert run("config", "-h")[0] == 0
    assert run("config", "show", "-h")[0] == 0


def test_version_is_printed(run: Run) -> None:
    assert run("--version") == (0, f"emogen {__version__}\n", "")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    modules = modules_after(("--help",), ("--version",), cwd=tmp_path)[-1]
    assert "typer" in modules
    assert not modules & {"torch", "numpy", "pydantic", "emogen.settings"}


def test_torch_is_not_imported_where_nothing_is_computed(tmp_path: Path) -> None:
    calls = [*((name, "--help") for name in COMMANDS), ("ckpt", "list"), ("ckpt", "show", "best"), ("config", "show")]
    for call, modules in zip(calls, modules_after(*calls, cwd=tmp_path), strict=True):
        assert f"emogen.cli.{call[0].replace('-', '_')}" in modules
        assert "torch" not in modules, call


def test_an_unknown_command_or_flag_is_a_usage_error_with_a_hint(run: Run) -> None:
    assert run("confg") == (
        2,
        "",
        "error: no such command 'confg'. Did you mean 'config'?\nhint: see `emogen --help`\n",
    )
    code, out, err = run("config", "show", "--jsno")
    assert (code, out) == (2, "")
    assert err.startswith("error: no such option: --jsno")
    assert err.endswith("hint: see `emogen config show --help`\n")


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise error

    monkeypatch.setattr(config, "load", load)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (EmogenError("it is broken", "mend it"), 1, "error: it is broken\nhint: mend it\n"),
        (EmogenError("it is broken"), 1, "error: it is broken\n"),
        (UsageError("no [such] thing", "try another"), 2, "error: no [such] thing\nhint: try another\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            1,
            "error: runs/x: No space left on device\nhint: make room on the disk /, or choose a folder on another\n",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
            1,
            "error: x: No such file or directory\nhint: check the path: a folder or file of it is not there\n",
        ),
        (OSError("it went wrong"), 1, "error: it went wrong\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_said_on_standard_error_with_its_hint_and_exit_code(
    error: BaseException, code: int, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(error, monkeypatch)
    monkeypatch.setattr("emogen.cli.disk_of", lambda path: "/")
    assert run("config", "show") == (code, "", said)


def test_a_refused_permission_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(PermissionError(errno.EACCES, "Permission denied", "emogen.toml"), monkeypatch)
    code, _, err = run("config", "show")
    assert code == 1
    assert err.startswith("error: emogen.toml: Permission denied\nhint: choose a place")


def test_a_bug_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(ZeroDivisionError("a bug"), monkeypatch)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["config", "show"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_is_one_error_and_no_more(tmp_path: Path) -> None:
    root = str(Path(emogen.__file__).parents[1])
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "emogen", "config", "init", "--help"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": root},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: No space left on device"
    assert len(done.stderr.splitlines()) == 2


def test_config_show_prints_every_option_with_its_origin(run: Run) -> None:
    Path("emogen.toml").write_text("[train]\nepochs = 3\n")
    code, out, err = run("config", "show")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(OPTIONS)
    assert re.search(r"^train\.epochs +3 +\./emogen\.toml$", out, re.MULTILINE)
    assert re.search(r"^train\.device +\"auto\" +default$", out, re.MULTILINE)
    assert re.search(r"^model\.d_model +512 +size base$", out, re.MULTILINE)
    assert f"read {Path('emogen.toml').absolute()}" in err
    assert f"not there: {settings.user_config()}" in err


def test_config_show_json_is_json_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOGEN_TRAIN__EPOCHS", "3")
    code, out, err = run("config", "show", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report.keys() == OPTIONS.keys()
    assert report["train.epochs"] == {"value": 3, "origin": "environment EMOGEN_TRAIN__EPOCHS"}
    assert report["paths.home"] == {"value": None, "origin": "default"}


def test_config_init_writes_a_file_once_unless_forced(run: Run) -> None:
    code, out, err = run("config", "init")
    assert (code, out) == (0, "")
    assert err.startswith("wrote emogen.toml")
    Path("emogen.toml").write_text("[train]\nepochs = 3\n")
    assert run("config", "init") == (1, "", "error: emogen.toml exists already\nhint: --force replaces it\n")
    assert Path("emogen.toml").read_text() == "[train]\nepochs = 3\n"
    assert run("config", "init", "--force")[0] == 0
    assert "#epochs = 50" in Path("emogen.toml").read_text()
    assert [path.name for path in Path().iterdir()] == ["emogen.toml"]


def test_config_init_user_writes_the_users_own_file(run: Run) -> None:
    assert run("config", "init", "--user")[0] == 0
    assert settings.user_config().read_text() == config.commented_file()
    assert list(Path().iterdir()) == []


def test_a_broken_settings_file_is_a_usage_error_that_names_it(run: Run) -> None:
    Path("emogen.toml").write_text("[train\n")
    code, out, err = run("config", "show")
    assert (code, out) == (2, "")
    assert err.startswith("error: ./emogen.toml: ")
    assert "line 1" in err


def test_torch_finds_its_environment_set_unless_the_user_has_set_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    run("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
