"""Device profiles as files: whole, of a known version, and light to load."""

import json
import subprocess
import sys

import pytest

from edgekit.device.profile import Cost, DeviceProfile, Pattern, load_profile, shipped_profile
from edgekit.errors import EdgekitError


def profile():
    cost = Cost(base_us=1.0, rate_us=0.25)
    pattern = Pattern(unit="MACs", fp32=cost, int8=cost, fused={"uint8": True, "int8": False}, kernels=("QLinearConv",))
    return DeviceProfile(target="x86-vnni", threads=2, environment={"cpu": "a"}, patterns={"Conv.dense": pattern})


def test_round_trip(tmp_path):
    profile().save(tmp_path / "p.json")
    assert load_profile(tmp_path / "p.json") == profile()


def test_a_cost_is_a_line():
    assert Cost(base_us=1.0, rate_us=0.25).of(8000) == 3.0


def test_what_was_not_probed_does_not_fuse():
    assert profile().fuses("Conv.dense", "uint8")
    assert not profile().fuses("Conv.dense", "int8")
    assert not profile().fuses("Conv.sparse", "uint8")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "no profile of this version"),
        ({"format": "edgekit-bundle"}, "no profile of this version"),
        ({"patterns": {"Add": {"unit": "elements"}}}, "KeyError: 'fp32'"),
        ({"patterns": {"Add": {"unit": "elements", "fp32": {"base": 1}}}}, "TypeError"),
        ({"threads": "many"}, "ValueError"),
    ],
)
def test_what_is_no_profile_is_named(tmp_path, change, text):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**profile().to_dict(), **change}))
    with pytest.raises(EdgekitError, match=text) as caught:
        load_profile(path)
    assert str(path) in caught.value.where


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(EdgekitError, match="No such file") as caught:
        load_profile(tmp_path / "none.json")
    assert "edgekit profile" in caught.value.way_out
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(EdgekitError, match="no JSON"):
        load_profile(tmp_path / "text.json")


def test_every_target_has_one():
    for target in ("x86-vnni", "x86-avx2", "arm64"):
        assert shipped_profile(target).fuses("Conv.dense", "uint8")


def test_reading_a_profile_loads_neither_torch_nor_onnx():
    code = (
        "import sys; from edgekit.device.profile import shipped_profile; shipped_profile('arm64'); "
        "print(sorted(set(sys.modules) & {'torch', 'onnx', 'onnxruntime', 'networkx'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
