from __future__ import annotations

from tests.cli.conftest import Command


def test_an_agent_is_defined_and_listed(succeeds: Command) -> None:
    words = ("agent", "define", "coder", "large", "--backend", "here")
    assert succeeds(*words, "--config", '{"t": 0}').out == "coder version 1\n"
    (second,) = succeeds(*words, "--json").objects
    assert (second["agent"], second["version"], second["config"]) == ("coder", 2, {})
    (current,) = succeeds("agent", "list", "--json").objects
    assert (current["version"], current["is_current"]) == (2, True)
    header, *lines = succeeds("agent", "list", "coder").lines
    assert header.split()[:4] == ["agent", "version", "is_current", "model"]
    assert [line.split()[1] for line in lines] == ["1", "2"]


def test_an_agent_that_cannot_be_is_told(pgflow: Command) -> None:
    done = pgflow("agent", "define", "coder", "")
    assert done.code == 1
    assert "model must be 1 to 200 characters" in done.err
