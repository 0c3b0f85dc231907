from __future__ import annotations

import subprocess
import sys

import click
import pytest

from pgflow import __version__
from tests.cli.conftest import Command, find_main

COMMANDS = (
    *("migrate", "dev", "worker", "enqueue", "runs", "show", "timeline", "inbox", "approve"),
    *("reject", "cancel", "retry", "pause", "resume", "queues", "workers", "doctor", "task"),
    *("tool", "signal", "journal", "fork", "breakpoint", "watch", "tail", "maintain", "flow"),
    "start",
    "subscription",
    "report",
    "context",
    "price",
    *("artifact", "schema"),
    "step-type",
    "agent",
    "abort",
)
GROUPS = {
    "task": {"show", "answer", "claim", "release", "delegate", "comment"},
    "tool": {"list", "resolve", "fail"},
    "breakpoint": {"set", "clear"},
    "flow": {"apply", "list", "show", "graph", "diff", "steps", "add-step", "history"},
    "subscription": {"read", "list", "end"},
    "price": {"list", "set"},
    "artifact": {"list", "show", "get", "diff"},
    "schema": {"define", "list", "show"},
    "agent": {"define", "list"},
    "step-type": {"list", "register", "unregister"},
}
BELOW = sorted((group, name) for group, names in GROUPS.items() for name in names)


def test_the_commands_are_those_that_were_promised() -> None:
    assert sorted(find_main().commands) == sorted(COMMANDS)


def test_groups_have_the_commands_that_were_promised() -> None:
    groups = {n: c for n, c in find_main().commands.items() if isinstance(c, click.Group)}
    assert {name: set(group.commands) for name, group in groups.items()} == GROUPS


@pytest.mark.parametrize("words", [*((name,) for name in COMMANDS), *BELOW], ids=" ".join)
def test_each_command_tells_what_it_does(anywhere: Command, words: tuple[str, ...]) -> None:
    command: click.Command = find_main()
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    done = anywhere(*words, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: pgflow {' '.join(words)} ")
    assert command.help
    assert command.help.splitlines()[0] in done.out
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help or isinstance(option.type, click.Choice), option.name


@pytest.mark.parametrize(("group", "name"), BELOW)
def test_the_first_sentence_of_each_command_fits_the_list_of_its_group(
    anywhere: Command, group: str, name: str
) -> None:
    lines = [line for line in anywhere(group, "--help").lines if line.startswith(f"  {name} ")]
    assert lines
    assert not lines[0].endswith("...")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_sentence_of_each_command_fits_the_list(anywhere: Command, name: str) -> None:
    lines = [line for line in anywhere("--help").lines if line.startswith(f"  {name} ")]
    assert lines
    assert not lines[0].endswith("...")


def test_the_help_tells_the_exit_codes(anywhere: Command) -> None:
    told = anywhere("--help").out
    for code in (0, 1, 2, 3, 4, 130, 141):
        assert f"\n    {code} " in told


def test_without_a_command_there_is_help(anywhere: Command) -> None:
    done = anywhere()
    assert done.code == 2
    assert "Commands:" in done.out + done.err


def test_the_version_is_the_packages(anywhere: Command) -> None:
    assert anywhere("--version").out == f"pgflow, version {__version__}\n"


def test_the_command_runs_as_a_module() -> None:
    told = subprocess.check_output([sys.executable, "-m", "pgflow.cli", "--version"], text=True)
    assert told == f"pgflow, version {__version__}\n"
