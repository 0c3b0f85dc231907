"""What type checkers tell those who use pgflow."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

API = Path(__file__).with_name("api.py")
ROOT = API.parents[2]
IGNORED = re.compile(r"  # type: ignore\[(.*)\]")


def mypy(text: str, folder: Path) -> set[tuple[int, str]]:
    """Check a text in the place of api.py; return the lines and the codes of its errors."""
    shadow = folder / "api.py"
    shadow.write_text(text)
    path = str(API.relative_to(ROOT))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
    command += ["--shadow-file", path, str(shadow), path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr
    errors = re.findall(r"^(.*?):(\d+): error: .*\[(.*)\]$", done.stdout, flags=re.MULTILINE)
    assert {file for file, _, _ in errors} <= {path}, done.stdout
    assert bool(errors) == bool(done.returncode), done.stdout
    return {(int(line), code) for _, line, code in errors}


def test_the_public_api_has_the_types_that_its_users_count_on(tmp_path: Path) -> None:
    assert mypy(API.read_text(), tmp_path) == set()


def test_each_misuse_is_reported(tmp_path: Path) -> None:
    text = API.read_text()
    expected = {
        (number, code)
        for number, line in enumerate(text.splitlines(), start=1)
        if (ignored := IGNORED.search(line))
        for code in ignored[1].split(", ")
    }
    assert len(expected) > 20
    assert mypy(IGNORED.sub("", text), tmp_path) == expected


def test_a_type_that_changed_is_reported(tmp_path: Path) -> None:
    text = API.read_text().replace("assert_type(draft, Draft)", "assert_type(draft, Article)")
    assert {code for _, code in mypy(text, tmp_path)} == {"assert-type"}
