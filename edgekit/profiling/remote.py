"""Timing graphs on another machine, by the system's own ssh: nothing is installed there and nothing stays.

One connection carries everything: the light rooms of edgekit as a zip and the request go in through stdin, and each
batch's costs come back as a line of JSON. What came back is kept, so a lost connection costs one batch.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from edgekit.device.costs import MeasuredCosts
from edgekit.device.request import Timed, pack
from edgekit.device.strict_json import parse
from edgekit.device.timing import SWEEPS, WORK, progress_of, sweeps_of
from edgekit.errors import EdgekitError, UnreachableError
from edgekit.progress import Progress, silent

LIGHT_ROOMS = ("__init__", "choices", "errors", "progress", "spec", "stats", "store", "units", "device")
"""What `edgekit.device` is made of: layers 1 and 2."""
OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15")
CONNECTION_LOST = 255
"""Ssh's exit code for faults of its own; others are the remote command's."""
ATTEMPTS, PAUSE_S = 4, 3.0
_HOST = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@:%\[\]-]*")

BOOTSTRAP = """
import json, os, shutil, signal, subprocess, sys, tempfile
if sys.version_info < (3, 11):
    sys.exit("edgekit needs Python 3.11 or later, this one is " + sys.version.split()[0])
for name in ("SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), lambda *_: sys.exit(1))
stream = sys.stdin.buffer
sizes = json.loads(stream.readline())
folder = tempfile.mkdtemp(prefix="edgekit-profile-")
child = None
try:
    for name in ("code.zip", "request"):
        data = stream.read(sizes[name])
        if len(data) != sizes[name]:
            sys.exit("the connection ended too early")
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    command = [sys.executable, "-m", "edgekit.device", "profile", os.path.join(folder, "request"), "--out", "-"]
    path = os.path.join(folder, "code.zip")
    child = subprocess.Popen(command + sys.argv[1:], env=dict(os.environ, PYTHONPATH=path), cwd=folder)
    code = child.wait()
finally:
    if child is not None and child.poll() is None:
        child.kill()
        child.wait()
    shutil.rmtree(folder, ignore_errors=True)
sys.exit(code)
"""
"""What the other Python runs: unpack into a folder, time, and remove the folder whatever happens."""


def time_graphs_on(
    host: str,
    graphs: Sequence[Timed],
    *,
    keep: Callable[[MeasuredCosts], None],
    known: MeasuredCosts | None = None,
    python: str = "python3",
    provider: str = "cpu",
    threads: int = 1,
    time_s: float = 60.0,
    pause_s: float = PAUSE_S,
    progress: Progress = silent,
) -> MeasuredCosts:
    """`edgekit.device.timing.time_graphs` on another machine, which needs ssh access, Python, numpy and onnxruntime.

    Args:
        host: as ssh takes it: `pi@raspberrypi`, or a name in ~/.ssh/config.
        graphs: what is timed.
        keep: given all costs so far after each batch.
        known: what an earlier run kept; it is not timed again.
        python: the interpreter there, by name, or by its path from the home folder.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads.
        time_s: seconds of measuring for all graphs.
        pause_s: before a lost connection is tried again.
        progress: told after each batch.

    Raises:
        UnreachableError: no connection comes about, or the other side fails.
        EdgekitError: the host's name is none, ssh is not installed, or `known` is of another device.
    """
    _check_host(host)
    costs = known or MeasuredCosts(threads=threads, provider=provider, measured={})
    total, lost = len(graphs), 0
    while True:
        rest = [each for each in graphs if sweeps_of(each, costs) < SWEEPS]
        progress(progress_of(graphs, costs))
        if not rest:
            return costs
        words = ["--provider", provider, "--threads", str(threads), "--time", str(time_s * len(rest) / total)]
        before = costs

        def take(line: bytes, before: MeasuredCosts = before) -> None:
            nonlocal costs, lost
            where = f"answer of {host}"
            costs = before.merge(MeasuredCosts.from_dict(parse(line, where), where))
            lost = 0
            keep(costs)
            progress(progress_of(graphs, costs))

        code, said = _converse(host, [python, "-c", BOOTSTRAP, *words], _payload(rest), take)
        if code == CONNECTION_LOST and lost < ATTEMPTS - 1:
            lost += 1
            time.sleep(pause_s)
        elif code:
            raise _failed(host, python, code, said)


def describe_on(host: str, *, python: str = "python3", threads: int = 1) -> MeasuredCosts:
    """The costs of nothing on another machine: their conditions tell what it is.

    Raises:
        UnreachableError: no connection comes about, or the other side fails.
        EdgekitError: the host's name is none, or ssh is not installed.
    """
    _check_host(host)
    found: list[MeasuredCosts] = []
    where = f"answer of {host}"

    def take(line: bytes) -> None:
        found.append(MeasuredCosts.from_dict(parse(line, where), where))

    code, said = _converse(host, [python, "-c", BOOTSTRAP, "--threads", str(threads)], _payload([]), take)
    if code or not found:
        raise _failed(host, python, code, said)
    return found[-1]


def light_rooms() -> bytes:
    """The source of what runs on a device, as a zip that Python imports from."""
    root = Path(__file__).resolve().parents[1]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for room in LIGHT_ROOMS:
            place = root / room
            for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
                archive.writestr(f"edgekit/{path.relative_to(root).as_posix()}", path.read_bytes())
    return file.getvalue()


def _check_host(host: str) -> None:
    if not _HOST.fullmatch(host):
        raise EdgekitError(
            f"got {host!r}",
            where="--on",
            rule="user@host or a name of ~/.ssh/config: letters, digits and _.@:-, no - in front",
            way_out="put other settings into ~/.ssh/config",
        )
    if shutil.which("ssh") is None:
        raise EdgekitError(
            "no ssh on this machine",
            where="--on",
            rule="the system's own ssh",
            way_out="install OpenSSH's client; or make a --request, copy it, run `python -m edgekit.device profile`",
        )


def _failed(host: str, python: str, code: int, said: str) -> UnreachableError:
    return UnreachableError(
        f"ssh ended with {code}: {said or 'it said nothing'}",
        where=host,
        rule="an ssh login without a password, and Python 3.11 with numpy and onnxruntime",
        way_out=f"try `ssh -o BatchMode=yes {host} {python} -c 'import onnxruntime'`; "
        "the same command goes on where this one stopped",
    )


def _payload(graphs: Sequence[Timed]) -> bytes:
    code, request = light_rooms(), pack(graphs)
    return json.dumps({"code.zip": len(code), "request": len(request)}).encode() + b"\n" + code + request


def _converse(host: str, command: Sequence[str], payload: bytes, take: Callable[[bytes], None]) -> tuple[int, str]:
    """Send everything, hand over each line that comes back; the exit code, and the end of what was said on stderr."""
    with tempfile.TemporaryFile() as errors:
        ssh = subprocess.Popen(  # noqa: S603 - the host is checked, the rest is fixed or quoted
            ["ssh", *OPTIONS, "--", host, shlex.join(command)],  # noqa: S607 - the user's own ssh
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert ssh.stdin is not None
        assert ssh.stdout is not None
        try:
            _send(ssh.stdin, payload)
            for line in ssh.stdout:
                # A line that was cut off by the end of the connection is no answer.
                if line.endswith(b"\n"):
                    take(line)
            code = ssh.wait()
        finally:
            if ssh.poll() is None:
                ssh.terminate()
                ssh.wait()
            ssh.stdout.close()
        errors.seek(0)
        lines = [line for line in errors.read().decode(errors="replace").splitlines() if line and WORK not in line]
    return code, " | ".join(lines[-4:])


def _send(stdin: IO[bytes], payload: bytes) -> None:
    try:
        with stdin:
            stdin.write(payload)
    except BrokenPipeError:
        return  # The exit code and stderr say why.
