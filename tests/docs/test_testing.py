"""The tests of docs/testing.md pass, as pytest runs them in a project of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgflow.testing import Scene

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)

# What pytest-asyncio and anyio do, in short.
ASYNC = """
import asyncio, inspect, pytest

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        asyncio.run(pyfuncitem.obj(pgflow_scene=pyfuncitem.funcargs["pgflow_scene"]))
        return True
"""


def test_the_tests_of_the_page_pass(
    pytester: pytest.Pytester, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLOW_TEST_DSN", server)
    app, *tests = BLOCKS
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makeconftest(ASYNC)
    pytester.makepyfile(shop=app, **{f"test_{n}": block for n, block in enumerate(tests)})
    count = sum(len(re.findall(r"^(?:async )?def test_", block, re.MULTILINE)) for block in tests)
    assert count > 6
    pytester.runpytest_subprocess().assert_outcomes(passed=count)


def test_every_method_of_a_scene_is_on_the_page() -> None:
    public = {name for name in vars(Scene) if not name.startswith("_")} - {"close", "app"}
    assert [name for name in sorted(public) if not re.search(rf"\b{name}\b", PAGE)] == []
