"""A real PostgreSQL for the tests of many workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

AS = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user."""


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a PostgreSQL that lives as long as the tests, on a socket in a folder of its own."""
    programs = _programs()
    if programs is None:
        _missing("no PostgreSQL here: apt-get install postgresql")
    owner = {"user": AS, "group": AS, "extra_groups": []} if os.geteuid() == 0 else {}
    if owner:
        try:
            shutil.chown(tempfile.mkdtemp(), AS, AS)
        except LookupError:
            _missing(f"running as root, and there is no user {AS!r} to run PostgreSQL as")
    folder = Path(tempfile.mkdtemp(prefix="edgekit-pg-"))
    if owner:
        shutil.chown(folder, AS, AS)
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "edgekit", "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
        **owner,
    )
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **owner,
    )
    try:
        _wait_for(programs, folder)
        yield f"postgresql://edgekit@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)  # fast: SIGTERM would wait for clients to leave
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").is_file() and (place / "postgres").is_file()), None)


def _wait_for(programs: Path, folder: Path) -> None:
    for _ in range(300):
        if not subprocess.run([programs / "pg_isready", "-q", "-h", folder], check=False).returncode:
            return
        time.sleep(0.1)
    pytest.fail("PostgreSQL did not come up within 30 s")


def _missing(reason: str) -> None:
    if os.environ.get("EDGEKIT_REQUIRE_POSTGRESQL"):
        pytest.fail(reason)
    pytest.skip(reason)
