"""Another machine, played by a program called ssh that runs here what it is told, and by a real sshd."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from edgekit.device import isa_target, timing
from edgekit.errors import EdgekitError, UnreachableError
from edgekit.profiling import graphs, pieces, remote
from edgekit.profiling.remote import describe_on, light_rooms, time_graphs_on
from tests.profiling.conftest import residual

FAKE = """#!{python}
import json, os, subprocess, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + chr(10))
{body}
"""
RUNS = """
os.environ.pop("PYTHONPATH", None)
os.environ["TMPDIR"] = {folder!r}
sys.exit(subprocess.run(["sh", "-c", sys.argv[-1]], cwd={folder!r}).returncode)
"""
BREAKS_ONCE = """
if len(open({log!r}).readlines()) == 1:
    os.environ["TMPDIR"] = {folder!r}
    child = subprocess.Popen(["sh", "-c", sys.argv[-1]], stdout=subprocess.PIPE, cwd={folder!r})
    line = child.stdout.readline()
    sys.stdout.buffer.write(line + line[:40])  # And then the line goes dead.
    sys.stdout.flush()
    child.stdout.close()
    child.wait()
    sys.exit(255)
"""


@pytest.fixture
def there(tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


@pytest.fixture
def fake_ssh(tmp_path, there, monkeypatch):
    """Make a program called ssh, and say what it was called with."""
    log = tmp_path / "log"
    log.touch()

    def make(body):
        program = tmp_path / "bin" / "ssh"
        program.parent.mkdir(exist_ok=True)
        body = body.format(folder=str(there), log=str(log))
        program.write_text(FAKE.format(python=sys.executable, log=str(log), body=body))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return log

    return make


@pytest.fixture(scope="module")
def network():
    return graphs(pieces(residual()))


def run(host, network, **options):
    kept = []
    made = time_graphs_on(host, network, keep=kept.append, python=sys.executable, time_s=0.1, pause_s=0.0, **options)
    return made, kept


def test_costs_come_back_and_nothing_stays(fake_ssh, network, there):
    log, steps = fake_ssh(RUNS), []
    made, kept = run("pi@raspberrypi", network, progress=steps.append)
    assert made.measured.keys() == {each.key for each in network}
    assert kept[-1] == made
    assert list(there.iterdir()) == []
    (words,) = map(json.loads, log.read_text().splitlines())
    assert words[-3:-1] == ["--", "pi@raspberrypi"]
    assert "BatchMode=yes" in words
    assert (steps[0].done, steps[-1].done) == (0, 2 * len(network))


def test_what_is_known_is_not_timed_again(fake_ssh, network):
    log = fake_ssh(RUNS)
    made, _ = run("device", network[:5])
    more, _ = run("device", network, known=made)
    assert {key: more.measured[key] for key in made.measured} == made.measured
    assert more.measured.keys() == {each.key for each in network}
    again, kept = run("device", network, known=more)
    assert (again, kept) == (more, [])
    assert len(log.read_text().splitlines()) == 2


def test_a_lost_connection_costs_no_batch_that_came_back(fake_ssh, network, there):
    log = fake_ssh(BREAKS_ONCE + RUNS)
    unique = [replace(each, key=f"{each.key[:30]}{end}") for end in "xyz" for each in network]
    unique = unique[: timing.BATCH + 4]
    made, kept = run("device", unique)
    assert made.measured.keys() == {each.key for each in unique}
    first = kept[0].measured
    assert 0 < len(first) < len(unique)
    assert len(kept) == 1 + 2 * 2  # The batch that came back, and then two sweeps of two batches.
    assert len(log.read_text().splitlines()) == 2
    assert list(there.iterdir()) == []


def test_a_connection_that_never_comes_about_is_told(fake_ssh, network):
    log = fake_ssh("print('No route to host', file=sys.stderr); sys.exit(255)")
    with pytest.raises(EdgekitError, match="No route to host"):
        run("nowhere", network)
    assert len(log.read_text().splitlines()) == remote.ATTEMPTS


def test_a_device_says_what_it_is_without_timing_anything(fake_ssh, there):
    fake_ssh(RUNS)
    found = describe_on("device", python=sys.executable, threads=3)
    assert (found.isa_target, found.threads, found.measured) == (isa_target(), 3, {})
    assert list(there.iterdir()) == []


@pytest.mark.parametrize("ends_with", [0, 255])
def test_a_device_that_does_not_say_what_it_is_is_told(fake_ssh, ends_with):
    fake_ssh(f"sys.stdin.buffer.read(); print('No route to host', file=sys.stderr); sys.exit({ends_with})")
    with pytest.raises(UnreachableError, match="No route to host"):
        describe_on("nowhere")


def test_a_fault_over_there_is_told_once(fake_ssh, network):
    log = fake_ssh("sys.stdin.buffer.read(); print('no module named numpy', file=sys.stderr); sys.exit(1)")
    with pytest.raises(EdgekitError, match="no module named numpy"):
        run("device", network)
    assert len(log.read_text().splitlines()) == 1


def test_another_answer_is_refused(fake_ssh, network):
    fake_ssh("sys.stdin.buffer.read(); print('Welcome!')")
    with pytest.raises(EdgekitError, match="not JSON"):
        run("device", network)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "", "a b", "a;b", "$(x)", "a\nb"])
def test_a_host_that_is_an_option_or_a_command_is_refused(fake_ssh, network, host):
    log = fake_ssh(RUNS)
    with pytest.raises(EdgekitError, match="got"):
        run(host, network)
    assert log.read_text() == ""


def test_where_there_is_no_ssh_the_way_out_is_named(network, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EdgekitError, match="no ssh"):
        run("device", network)


def test_the_rooms_that_travel_are_all_that_is_needed(tmp_path):
    with zipfile.ZipFile(BytesIO(light_rooms())) as archive:
        names = archive.namelist()
    assert "edgekit/device/__main__.py" in names
    assert {name.split("/")[1].removesuffix(".py") for name in names} == set(remote.LIGHT_ROOMS)
    (tmp_path / "code.zip").write_bytes(light_rooms())
    code = "import edgekit, edgekit.device.__main__ as m; print(edgekit.__file__); m.main(['profile', '-h'])"
    # Without `site`: an editable install would lend what the zip lacks.
    places = [tmp_path / "code.zip", sysconfig.get_path("purelib")]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "code.zip" in done.stdout.splitlines()[0]
    assert "--threads" in done.stdout


def test_a_real_ssh_brings_the_costs_back(real_host, network):
    made, _ = run(real_host, network)
    assert made.measured.keys() == {each.key for each in network}
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("edgekit-profile-*"))  # noqa: S108 - where mkdtemp puts it
