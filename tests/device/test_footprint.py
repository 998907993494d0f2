from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.device import footprint
from edgekit.device.cold_start import main, peak_bytes
from edgekit.errors import EdgekitError, ProviderError

FEEDS = {"image": np.zeros((1, 3, 4, 4), np.float32)}


def test_a_cold_start_is_measured_in_a_process_of_its_own(model_file):
    ballast = np.ones(200_000_000, np.uint8)  # Linux's getrusage would count what this process holds.
    result = footprint(model_file, FEEDS)
    assert result.size_bytes == model_file.stat().st_size
    assert 10_000_000 < result.base_bytes <= result.peak_bytes < ballast.size
    assert result.load_ms > 0
    assert result.first_ms > 0
    assert set(result.to_dict()) == {"load_ms", "first_ms", "peak_bytes", "base_bytes", "size_bytes"}


def test_names_of_inputs_may_hold_any_character(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    name = "/a/../b:0 ü"
    graph = helper.make_graph(
        [helper.make_node("Relu", [name], ["y"])],
        "g",
        [value(name, TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    path = tmp_path / "odd.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    assert footprint(path, {name: np.zeros(1, np.float32)}).size_bytes


def test_missing_file(tmp_path):
    with pytest.raises(EdgekitError, match="no such file"):
        footprint(tmp_path / "none.onnx", FEEDS)


def test_what_onnx_runtime_says_comes_through(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(EdgekitError, match=r"(?i)protobuf") as caught:
        footprint(tmp_path / "bad.onnx", FEEDS)
    assert caught.value.where == str(tmp_path / "bad.onnx")


def test_an_absent_provider_is_a_provider_error(model_file):
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has TensorRT")
    with pytest.raises(ProviderError, match="'tensorrt' is not in this onnxruntime"):
        footprint(model_file, FEEDS, provider="tensorrt")


def test_a_process_that_dies_is_said_to_have(model_file, monkeypatch, tmp_path):
    killer = tmp_path / "python"
    killer.write_text("#!/bin/sh\nkill -9 $$\n")
    killer.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(killer))
    with pytest.raises(EdgekitError, match="was killed by SIGKILL"):
        footprint(model_file, FEEDS)
    killer.write_text("#!/bin/sh\necho last words >&2\nexit 3\n")
    with pytest.raises(EdgekitError, match=r"ended with exit code 3\n(.|\n)*last words"):
        footprint(model_file, FEEDS)
    killer.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(EdgekitError, match="left no result"):
        footprint(model_file, FEEDS)
    killer.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(EdgekitError, match="did not load and run within"):
        footprint(model_file, FEEDS, timeout_s=0.1)


def test_the_child_writes_its_figures(model_file, tmp_path):
    np.savez(tmp_path / "feeds.npz", *FEEDS.values(), names=np.array(list(FEEDS)))
    result = tmp_path / "result.json"
    main([str(model_file), str(tmp_path / "feeds.npz"), str(result), "cpu", "1"])
    assert '"peak_bytes"' in result.read_text()


def test_peak_is_read_from_the_program_and_not_its_parent():
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc here")
    assert f"VmHWM:\t{peak_bytes() // 1024:8d} kB" in status.read_text()
