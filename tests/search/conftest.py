"""A real PostgreSQL for the tests of many workers, a real sshd for those of another device."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import torch

from edgekit.workload import WorkloadConfig
from tests.required import absent
from tests.sshd import real_host  # noqa: F401 - a fixture

AS = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user."""


PROJECT = """
import edgekit
import torch
from torch import nn
from torch.utils.data import TensorDataset


def network():
    width = edgekit.choice("width", [4, 8, 16], default=8)
    depth = edgekit.choice("depth", [1, 2])
    inner = edgekit.choice("inner", ["relu", "tanh"]) if depth > 1 else "relu"
    layers = [nn.Linear(6, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU() if inner == "relu" else nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, 3))


def two():
    width = edgekit.choice("width", [4, 8])
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def broken():
    if edgekit.choice("whole", [True, False]):
        return two()
    raise ValueError("no such network")


def teacher():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def microseconds(network):
    return sum(parameter.numel() for parameter in network.parameters()) / 1000


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return TensorDataset(torch.randn(n, 6, generator=generator) + 2 * torch.eye(6)[y], y)


def train_data():
    return data(192, 1)


def test_data():
    return data(96, 2)
"""
"""A user's project whose networks train in no time."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For networks this small a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The file of the project."""
    path = tmp_path_factory.mktemp("project") / "net.py"
    path.write_text(PROJECT)
    return path


@pytest.fixture(scope="session")
def config_for(project):
    """The workload with a builder of the project."""

    def make(builder="network", **entries):
        return WorkloadConfig(
            model=f"{project}:{builder}",
            train=f"{project}:train_data",
            test=f"{project}:test_data",
            calibration_size=32,
            name="net",
            **entries,
        )

    return make


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a PostgreSQL that lives as long as the tests, on a socket in a folder of its own."""
    programs = _programs()
    if programs is None:
        absent("POSTGRESQL", "no PostgreSQL here: apt-get install postgresql")
    owner = {"user": AS, "group": AS, "extra_groups": []} if os.geteuid() == 0 else {}
    if owner and not any(user.pw_name == AS for user in pwd.getpwall()):
        absent("POSTGRESQL", f"running as root, and there is no user {AS!r} to run PostgreSQL as")
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
