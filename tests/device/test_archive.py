"""A bundle as one file: what is written, and that it is the same bundle."""

from __future__ import annotations

import hashlib
import shutil
import struct
import zipfile

import pytest

from edgekit.bundle import inspect, pack, verify_bundle
from edgekit.device import load
from edgekit.device.__main__ import main
from edgekit.device.verify import open_bundle
from edgekit.errors import BundleError


def entries(data):
    """(name, data) by walking local headers as APPNOTE has them; the code under test reads the directory."""
    position = 0
    while data[position : position + 4] == b"PK\x03\x04":
        flags, method, time, date = struct.unpack_from("<4H", data, position + 6)
        assert (flags, method, time, date) == (0, 0, 0, 0x21)
        packed, size, named, extra = struct.unpack_from("<2L2H", data, position + 18)
        assert (packed, extra) == (size, 0)
        name = data[position + 30 : position + 30 + named].decode()
        position += 30 + named
        yield name, data[position : position + size]
        position += size
    assert data[position : position + 4] == b"PK\x01\x02"


def test_the_bytes_are_the_files_in_order(make_bundle, tmp_path):
    folder = make_bundle()
    written = pack(folder, tmp_path / "one.edgekit.zip").read_bytes()
    found = list(entries(written))
    assert [name for name, _ in found] == sorted(name for name, _ in found)
    assert dict(found) == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    with zipfile.ZipFile(tmp_path / "one.edgekit.zip") as archive:  # any other reader sees the same
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == dict(found)


def test_equal_bundles_give_equal_bytes(make_bundle, tmp_path):
    direct = make_bundle("direct.edgekit.zip")
    again = make_bundle("again.edgekit.zip")
    packed = pack(make_bundle("folder.edgekit"), tmp_path / "packed.edgekit.zip")
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in (direct, again, packed)}) == 1
    assert not list(tmp_path.glob(".*"))


def test_the_zip_is_the_same_bundle(make_bundle):
    folder, zipped = make_bundle("b.edgekit"), make_bundle("b.edgekit.zip")
    about = [inspect(path) for path in (folder, zipped)]
    assert {**about[0], "path": ""} == {**about[1], "path": ""}
    one, other = load(folder), load(zipped)
    assert one.digest == other.digest
    assert one.check() == other.check()
    assert verify_bundle(folder).to_dict() == {**verify_bundle(zipped).to_dict(), "path": str(folder)}


def test_a_bundle_is_replaced_and_something_else_is_not(make_bundle, tmp_path):
    first = make_bundle("b.edgekit.zip").read_bytes()
    assert make_bundle("b.edgekit.zip", name="other").read_bytes() != first
    (tmp_path / "data.zip").write_bytes(b"my data")
    with pytest.raises(BundleError, match="something else is there"):
        make_bundle("data.zip")
    assert (tmp_path / "data.zip").read_bytes() == b"my data"
    with pytest.raises(BundleError, match="not the name of a zip"):
        pack(tmp_path / "b.edgekit.zip", tmp_path / "b.tar")


def test_a_changed_bundle_is_not_packed(make_bundle, tmp_path):
    folder = make_bundle()
    path = folder / "models/model/exact/model.onnx"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(BundleError, match="changed: its SHA-256"):
        pack(folder, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_zip_cut_short_after_it_was_opened(make_bundle):
    zipped = make_bundle("b.edgekit.zip")
    opened = open_bundle(zipped)
    zipped.write_bytes(zipped.read_bytes()[:100])
    with pytest.raises(BundleError, match="the file ends within an entry"):
        opened.read("models/model/near/model.onnx")


def test_a_pipe_is_no_zip(tmp_path):
    import os

    os.mkfifo(tmp_path / "p.zip")
    with pytest.raises(BundleError, match="not a regular file"):
        load(tmp_path / "p.zip")


@pytest.mark.parametrize("verb", ["inspect", "check"])
def test_the_device_takes_a_zip(make_bundle, capsys, verb):
    zipped = make_bundle("b.edgekit.zip")
    assert main([verb, str(zipped)]) == 0
    assert "exact" in capsys.readouterr().out


def test_the_device_times_a_zip(make_bundle, capsys):
    zipped = make_bundle("b.edgekit.zip")
    assert main(["bench", str(zipped), "--time", "0.1", "--starts", "1"]) == 0
    assert f"file {zipped.stat().st_size / 1000:.1f} kB" in capsys.readouterr().out


def test_copies_of_folders_are_the_same_bundle(make_bundle, tmp_path):
    folder = make_bundle()
    shutil.copytree(folder, tmp_path / "copy")
    assert pack(tmp_path / "copy", tmp_path / "c.zip").read_bytes() == pack(folder, tmp_path / "d.zip").read_bytes()
