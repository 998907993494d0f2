"""Opening a model in ONNX Runtime on exactly the provider that was asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ProviderError, did_you_mean

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""The names people type, and ONNX Runtime's."""


def runtime() -> Any:
    """The `onnxruntime` module, imported with its telemetry off and its warnings silent.

    Raises:
        ProviderError: onnxruntime is not installed, or its installation is broken.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(
            f"onnxruntime cannot be imported: {error}",
            where="this Python environment",
            rule="a device needs numpy and exactly one of onnxruntime, onnxruntime-gpu",
            way_out="pip install onnxruntime",
        ) from error
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime


def provider_name(provider: str) -> str:
    """ONNX Runtime's name of a provider given by either name.

    Raises:
        ProviderError: the name is unknown, or this onnxruntime was built without the provider.
    """
    name = PROVIDERS.get(provider.lower(), provider)
    available = runtime().get_available_providers()
    if name not in PROVIDERS.values():
        raise ProviderError(
            f"unknown provider {provider!r}",
            where="provider",
            rule=f"one of {', '.join(PROVIDERS)}",
            way_out=did_you_mean(provider, PROVIDERS, "`edgekit doctor` lists what works here"),
        )
    if name not in available:
        raise ProviderError(
            f"provider {provider!r} is not in this onnxruntime",
            where="provider",
            rule=f"available here: {', '.join(available)}",
            way_out="install onnxruntime-gpu instead of onnxruntime for CUDA; `edgekit doctor` tells more",
        )
    return name


def open_session(
    model: Path | bytes,
    *,
    provider: str = "cpu",
    threads: int = 1,
    optimize: bool = True,
    config: Mapping[str, str] | None = None,
    optimized_path: Path | None = None,
    profile_prefix: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Load a model on `provider` with a fixed number of intra-op threads and sequential execution.

    Args:
        model: an ONNX file, or its bytes.
        provider: `cpu`, `cuda` or `tensorrt`. A session that fell back to the CPU is an error, not a slow success.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
        optimize: whether ONNX Runtime may fuse and rewrite; without, each node runs by itself, Q/DQ in float.
        config: ONNX Runtime's session configuration entries.
        optimized_path: where ONNX Runtime writes the graph it really runs (for reading; it is made for this machine).
        profile_prefix: where ONNX Runtime's profiler writes, when the nodes' times are wanted.

    Raises:
        ProviderError: the provider is unknown, absent, or was silently replaced by the CPU.
    """
    ort = runtime()
    name = provider_name(provider)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    source = model if isinstance(model, bytes) else str(model)
    cpu = PROVIDERS["cpu"]
    try:
        # Without enable_fallback=0 onnxruntime prints a banner on stdout and tries the CPU.
        session = ort.InferenceSession(source, options, providers=list(dict.fromkeys([name, cpu])), enable_fallback=0)
    except (RuntimeError, ValueError) as error:
        if name == cpu:
            raise
        raise ProviderError(
            f"{name} did not load the model: {error}",
            where=str(model) if isinstance(model, Path) else "model",
            rule="a session runs on the provider that was asked for",
            way_out="check the driver and the CUDA libraries with `edgekit doctor`, or ask for cpu",
        ) from error
    if session.get_providers()[0] != name:
        raise ProviderError(
            f"asked for {name}, ONNX Runtime runs on {session.get_providers()[0]}",
            where=str(model) if isinstance(model, Path) else "model",
            rule="a session runs on the provider that was asked for",
            way_out="check the driver and the CUDA libraries with `edgekit doctor`, or ask for cpu",
        )
    return session
