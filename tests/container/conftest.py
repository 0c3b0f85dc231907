"""PostgreSQL in containers: databases that can be killed or frozen like a machine of their own.

tests/prepare.sh makes the image and says by $PGFLOW_DOCKER_IMAGE where it is.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from testcontainers.community.postgres import PostgresContainer


class Database:
    """A server in a container. Its address stays the same over kill and start."""

    def __init__(self, container: PostgresContainer) -> None:
        self._container = container
        self.dsn = container.get_connection_url(driver=None)

    def connect(self, *, timeout: int = 10) -> psycopg.Connection:
        """Open a connection in autocommit; `timeout` is in seconds, psycopg's least is 2."""
        return psycopg.connect(self.dsn, autocommit=True, connect_timeout=timeout)

    def kill(self) -> None:
        """End all processes of the container at once; its disk stays."""
        self._container.get_wrapped_container().kill()

    def start(self, *, within: float = 30) -> None:
        """Start the killed container and return when it takes connections again."""
        self._container.get_wrapped_container().start()
        deadline = time.monotonic() + within
        while True:
            try:
                self.connect(timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def pause(self) -> None:
        """Freeze all processes: the kernel still takes connections, nobody answers them."""
        self._container.get_wrapped_container().pause()

    def unpause(self) -> None:
        """Let them go on where they were."""
        self._container.get_wrapped_container().unpause()


@pytest.fixture(scope="session")
def image() -> str:
    """Return the name of the image, or skip the test with the reason why there is none."""
    if name := os.environ.get("PGFLOW_DOCKER_IMAGE"):
        return name
    reason = os.environ.get("PGFLOW_DOCKER_SKIP") or "run tests/prepare.sh, then . .venv/test.env"
    pytest.skip(f"no containers: {reason}")


@pytest.fixture
def database(image: str) -> Iterator[Database]:
    """Return a fresh, empty database in a container of its own."""
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - seldom needed

    container = PostgresContainer(image, password=secrets.token_hex(16), driver=None)
    # A port that Docker chooses would be another one after every start.
    container.with_bind_ports(5432, _free_port())
    with container:
        yield Database(container)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
