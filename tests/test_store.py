import json
import os
import subprocess
import sys
import textwrap

import pytest

from edgekit.errors import StoreError
from edgekit.store import MARKER, Store, file_sha256, is_whole, key_digest, write_atomic, write_json


def test_a_stage_is_made_once_and_found_again(tmp_path):
    store, calls = Store(tmp_path), []

    def make(folder):
        calls.append(folder)
        (folder / "a.bin").write_bytes(b"1234")

    first = store.build("stage", {"x": 1}, make)
    assert store.build("stage", {"x": 1}, make) == first
    assert len(calls) == 1
    assert (first / "a.bin").read_bytes() == b"1234"
    assert json.loads((first / MARKER).read_text())["files"] == {
        "a.bin": "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4"
    }
    assert store.build("stage", {"x": 2}, make) != first


def test_an_interrupted_stage_is_never_taken_for_whole_and_can_resume(tmp_path):
    store = Store(tmp_path)

    def dies(folder):
        (folder / "checkpoint").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build("stage", {}, dies)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []

    def resumes(folder):
        assert (folder / "checkpoint").read_text() == "half"
        (folder / "checkpoint").write_text("whole")

    assert (store.build("stage", {}, resumes) / "checkpoint").read_text() == "whole"


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "marker"])
def test_a_harmed_stage_is_made_again(tmp_path, harm):
    store = Store(tmp_path)
    folder = store.build("stage", {}, lambda folder: (folder / "a").write_bytes(b"abc") and None)
    path = folder / (MARKER if harm == "marker" else "a")
    if harm == "flip":
        path.write_bytes(b"abd")
    elif harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:2])
    assert not is_whole(folder)
    again = store.build("stage", {}, lambda folder: (folder / "a").write_bytes(b"abc") and None)
    assert again == folder
    assert is_whole(folder)
    assert (folder / "a").read_bytes() == b"abc"


def test_kill_9_at_any_moment_leaves_whole_or_nothing(tmp_path):
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from edgekit.store import Store
        def make(folder):
            for i in range(50):
                (folder / f"{i}.bin").write_bytes(bytes([i]) * 100_000)
        for i in range(100_000):
            Store(Path(sys.argv[1])).build("stage", {"i": i}, make)
            print(i, flush=True)
        """
    )
    for lines in (1, 2, 3):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        stages = [path for path in tmp_path.iterdir() if path.name.startswith("stage-")]
        assert stages
        assert all(is_whole(path) for path in stages)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        write_json(path, {"new": 2})
    assert "free some space" in str(caught.value)
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write") as caught:
        write_atomic(tmp_path / "file" / "x.json", "{}")
    assert "file" in str(caught.value)
    with pytest.raises(StoreError, match="cannot write"):
        Store(tmp_path / "file").build("stage", {}, lambda _folder: None)


def test_two_processes_cannot_work_in_one_store(tmp_path):
    with Store(tmp_path).locked(), pytest.raises(StoreError, match="another edgekit process"), Store(tmp_path).locked():
        pass
    with Store(tmp_path).locked():
        pass


def test_nan_never_reaches_a_json_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_digests(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert file_sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert key_digest({"a": [1, 2]}) != key_digest({"a": [2, 1]})
