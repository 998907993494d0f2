"""Files of weights: what is read, and what is never run."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekit.errors import WorkloadError
from edgekit.workload import WorkloadConfig, load_workload, read_weights, with_weights

PROJECT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def train(): return TensorDataset(torch.rand(40, 3), torch.arange(40) % 4)
def test(): return TensorDataset(torch.rand(40, 3), torch.arange(40) % 4)
def model(): return nn.Linear(3, 4)
"""


class Touch:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def state():
    return {name: torch.randn_like(value) for name, value in nn.Linear(3, 4).state_dict().items()}


@pytest.fixture
def evil(tmp_path, state):
    """(file, what it would create), of each form in which a pickle comes."""

    def make(form):
        path, made = tmp_path / f"{form}.pt", tmp_path / "created"
        if form == "bare":
            path.write_bytes(pickle.dumps(Touch(made)))
        else:
            legacy = form == "legacy"
            torch.save({**state, "extra": Touch(made)}, path, _use_new_zipfile_serialization=not legacy)
        return path, made

    return make


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_data_is_read(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "c.pth")
    for name in ("a.safetensors", "b.pt", "c.pth"):
        assert same(read_weights(tmp_path / name), state)


FORMS = ["bare", "zip", "legacy"]


@pytest.mark.parametrize("form", FORMS)
def test_the_attack_of_these_tests_works(evil, form):
    path, made = evil(form)
    assert not made.exists()
    if form == "bare":
        pickle.loads(path.read_bytes())  # noqa: S301 - this is what is shown
    else:
        torch.load(path, weights_only=False)
    assert made.exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_malicious_pickle_is_refused_and_does_nothing(evil, form):
    path, made = evil(form)
    with pytest.raises(WorkloadError) as caught:
        read_weights(path)
    assert not made.exists()
    if form != "bare":  # torch takes a bare pickle for a torn file
        assert caught.value.problem == "holds more than weights, and reading it would run what it says"
        assert f"--trust-pickle {path}" in caught.value.way_out


@pytest.mark.parametrize("text", ["version https://git-lfs.github.com/spec/v1", "<!doctype html>", '{"a": 1}', "x"])
def test_a_text_in_the_place_of_weights_is_shown_and_nobody_is_told_to_trust_it(text, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_text(text)
    with pytest.raises(WorkloadError) as caught:
        read_weights(path)
    assert text[:20] in caught.value.problem
    assert "--trust-pickle" not in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_the_flag_that_names_another_file_trusts_nothing(evil, form, tmp_path, state):
    path, made = evil(form)
    other = tmp_path / "other.pt"
    for exists in (False, True):
        if exists:
            torch.save(state, other)
        with pytest.raises(WorkloadError) as caught:
            read_weights(path, other)
        assert not made.exists()
        assert form == "bare" or f"--trust-pickle names {other}" in caught.value.problem
    copy = tmp_path / "copy.pt"
    copy.write_bytes(path.read_bytes())
    with pytest.raises(WorkloadError):
        read_weights(path, copy)
    assert not made.exists()


def test_the_flag_that_names_the_file_reads_it(evil, tmp_path):
    path, made = evil("zip")
    with pytest.raises(WorkloadError, match="no set of tensors"):
        read_weights(path, path)
    assert made.exists()  # that is what the flag means
    network = nn.Linear(3, 4)
    torch.save(network, tmp_path / "module.pt")
    with pytest.raises(WorkloadError, match="holds more than weights"):
        read_weights(tmp_path / "module.pt")
    assert same(read_weights(tmp_path / "module.pt", tmp_path / "module.pt"), network.state_dict())


def test_a_pickle_by_the_name_of_safetensors_is_none(evil, tmp_path):
    path, made = evil("zip")
    named = tmp_path / "w.safetensors"
    named.write_bytes(path.read_bytes())
    with pytest.raises(WorkloadError, match="cannot read"):
        read_weights(named, named)
    assert not made.exists()


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04 torn", bytes(64)])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_that_are_none(tmp_path, data, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(data)
    with pytest.raises(WorkloadError):
        read_weights(path)


def test_files_that_hold_something_else(tmp_path):
    for value in ([torch.zeros(2)], {"a": 1}, {1: torch.zeros(2)}, torch.zeros(2)):
        torch.save(value, tmp_path / "w.pt")
        with pytest.raises(WorkloadError, match="no set of tensors"):
            read_weights(tmp_path / "w.pt")
    with pytest.raises(WorkloadError, match="no such file"):
        read_weights(tmp_path / "absent.pt")


def test_weights_of_another_model(tmp_path):
    save_file(nn.Linear(5, 4).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WorkloadError, match=r"weight is \[4, 5\]"):
        with_weights(lambda: nn.Linear(3, 4), tmp_path / "w.safetensors")()


def test_a_workload_takes_its_weights(tmp_path, state):
    (tmp_path / "net.py").write_text(PROJECT)
    save_file(state, tmp_path / "w.safetensors")
    entries = {"model": "net.py:model", "train": "net.py:train", "test": "net.py:test", "folder": tmp_path}
    made = load_workload(WorkloadConfig(**entries, weights="w.safetensors")).model()
    assert same(made.state_dict(), state)


def test_a_workload_runs_no_pickle_but_the_named_one(tmp_path, evil):
    (tmp_path / "net.py").write_text(PROJECT)
    path, made = evil("zip")
    entries = {"model": "net.py:model", "train": "net.py:train", "test": "net.py:test", "folder": tmp_path}
    for trusted in (None, "other.pt"):
        with pytest.raises(WorkloadError, match="holds more than weights"):
            load_workload(WorkloadConfig(**entries, weights=path.name, trust_pickle=trusted))
    assert not made.exists()
