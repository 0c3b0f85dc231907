"""docs/cli.md says what the command says of itself."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pgflow import Client

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
(SCRIPT,) = entry_points(group="console_scripts", name="pgflow")
MAIN: click.Group = SCRIPT.load()


def section(name: str) -> str:
    return PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def options(command: click.Command) -> set[str]:
    return {o for p in command.params for o in p.opts if o.startswith("--")}


@pytest.mark.parametrize("name", sorted(MAIN.commands))
def test_each_command_has_a_section_with_an_example_and_its_options(name: str) -> None:
    text = section(f"pgflow {name}")
    assert f"\n$ pgflow {name}" in text
    assert f"[{name}](#pgflow-{name})" in PAGE
    command = MAIN.commands[name]
    below = command.commands.values() if isinstance(command, click.Group) else ()
    told = set().union(*(options(c) for c in (command, *below)))
    everywhere = options(MAIN) | {"--json"}
    assert not {o for o in told - everywhere if f"`{o}" not in text}


def test_the_commands_of_a_group_are_told() -> None:
    for name, group in MAIN.commands.items():
        for below in group.commands if isinstance(group, click.Group) else ():
            assert f"pgflow {name} {below}" in section(f"pgflow {name}")


def test_no_section_is_about_a_command_that_is_not_there() -> None:
    assert set(re.findall(r"^## pgflow ([\w-]+)$", PAGE, flags=re.MULTILINE)) == set(MAIN.commands)


def test_the_page_has_the_global_options() -> None:
    names = {o for p in MAIN.params for o in p.opts if o.startswith("--")} - {"--version"}
    assert set(re.findall(r"^\| `(--\w+)`", section("Where it works"), flags=re.MULTILINE)) == names


def test_the_page_has_the_exit_codes_of_the_help() -> None:
    told = CliRunner().invoke(MAIN, ["--help"]).stdout
    in_help = set(re.findall(r"^    (\d+) ", told, flags=re.MULTILINE))
    on_page = set(re.findall(r"^\| (\d+) \|", section("Exit codes"), flags=re.MULTILINE))
    assert in_help == on_page != set()


@pytest.mark.parametrize(
    "name", ["runs", "timeline", "journal", "inbox", "queues", "workers", "tool list"]
)
def test_the_columns_on_the_page_are_those_that_are_printed(name: str, dsn: str) -> None:
    words = name.split()
    if name in {"timeline", "journal"}:
        with Client(dsn) as client:
            words.append(str(client.enqueue("h")))
    printed = CliRunner().invoke(MAIN, ["--dsn", dsn, *words]).stdout.splitlines()[0]
    on_page = re.search(rf"\n\$ pgflow {name}\b.*\n(.*)", section(f"pgflow {words[0]}"))
    assert on_page is not None
    assert on_page[1].split() == printed.split()
