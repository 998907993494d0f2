"""A real sshd for the tests of other machines."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.required import absent

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@pytest.fixture
def real_host(tmp_path, monkeypatch):
    """A real sshd on the loopback, for one user and one key."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        absent("SSHD", "no sshd on this machine")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.PIPE)
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    # The user's settings, which a test has no home for.
    program.write_text(
        f"#!/bin/sh\nexec {shutil.which('ssh')} -F none -p {port} -i {tmp_path / 'user'} -o IdentitiesOnly=yes "
        f'-o StrictHostKeyChecking=no -o UserKnownHostsFile={tmp_path / "known"} -o LogLevel=ERROR "$@"\n'
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None:
                absent("SSHD", f"sshd does not start here: {server.stderr.read().decode()[-200:]}")
            time.sleep(0.05)
        yield f"{getpass.getuser()}@127.0.0.1"
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()
