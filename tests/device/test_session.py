from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.device import session as module
from edgekit.device.session import open_session, provider_name, runtime
from edgekit.errors import ProviderError

FEEDS = {"image": np.ones((2, 3, 4, 4), np.float32)}


@pytest.mark.parametrize("provider", ["cpu", "CPU", "CPUExecutionProvider"])
@pytest.mark.parametrize("optimize", [True, False])
def test_opens_files_and_bytes_alike(model_file, reference, provider, optimize):
    for source in (model_file, model_file.read_bytes()):
        (scores,) = open_session(source, provider=provider, optimize=optimize).run(None, FEEDS)
        assert np.allclose(scores, reference.expected(FEEDS["image"]), atol=1e-4)


def test_threads_and_configuration_reach_onnx_runtime(model_file, tmp_path):
    made = open_session(
        model_file,
        threads=2,
        config={"session.x64quantprecision": "1"},
        optimized_path=tmp_path / "optimized.onnx",
        profile_prefix=tmp_path / "profile",
    )
    options = made.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.x64quantprecision") == "1"
    assert (tmp_path / "optimized.onnx").is_file()
    made.run(None, FEEDS)
    assert made.end_profiling().startswith(str(tmp_path / "profile"))


def test_unknown_and_absent_providers(monkeypatch):
    with pytest.raises(ProviderError, match="unknown provider 'npu'"):
        provider_name("npu")
    monkeypatch.setattr(runtime(), "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="'cuda' is not in this onnxruntime"):
        provider_name("cuda")


def fake(monkeypatch, session):
    really = runtime()
    ort = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=really.SessionOptions,
        InferenceSession=session,
    )
    monkeypatch.setattr(module, "runtime", lambda: ort)


def test_a_session_that_fell_back_to_the_cpu_is_an_error(monkeypatch, model_file):
    def session(_source, _options, *, providers, enable_fallback):
        assert (providers, enable_fallback) == (["CUDAExecutionProvider", "CPUExecutionProvider"], 0)
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    fake(monkeypatch, session)
    with pytest.raises(ProviderError, match="asked for CUDAExecutionProvider, ONNX Runtime runs on CPUExecution"):
        open_session(model_file, provider="cuda")


def test_a_provider_that_raises_is_a_provider_error(monkeypatch, model_file):
    def session(*_words, **_options):
        raise RuntimeError("libcublas.so.12: cannot open shared object file")

    fake(monkeypatch, session)
    with pytest.raises(ProviderError, match="CUDAExecutionProvider did not load the model: libcublas"):
        open_session(model_file, provider="cuda")
    with pytest.raises(RuntimeError, match="libcublas"):
        open_session(model_file, provider="cpu")


def test_no_onnxruntime(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ProviderError) as caught:
        runtime()
    assert caught.value.way_out == "pip install onnxruntime"
