"""Facts of the machine and the server that results are only good with. No names, no paths."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import psutil

from bench.server import SETTINGS, connect, database
from pgflow import __version__


def facts(admin: str) -> dict[str, Any]:
    """Return what the results depend on."""
    with connect(admin) as conn:
        version = conn.info.parameter_status("server_version")
        shown = {
            name: (conn.execute(f"show {name}".encode()).fetchone() or ("",))[0]
            for name in (*SETTINGS, "autovacuum", "checkpoint_timeout")
        }
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": version,
        "settings": shown,
        "pgflow": __version__,
        "commit_ms": commit_latency(admin),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def commit_latency(admin: str, count: int = 300) -> float:
    """Return the median milliseconds of a transaction that writes one row: mostly the disk's."""
    with database(admin) as dsn, connect(dsn) as conn:
        conn.execute("create table note (id bigint)")
        taken = []
        for number in range(count):
            began = time.perf_counter()
            conn.execute("insert into note values (%s)", (number,))
            taken.append(time.perf_counter() - began)
    return round(statistics.median(taken) * 1000, 3)


def _processor() -> str:
    """Return the processor's model, where the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
