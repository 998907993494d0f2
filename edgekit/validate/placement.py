"""Where nodes really run, and what ONNX Runtime makes of the graph before it runs it."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.device.session import open_session, provider_name
from edgekit.errors import ProviderError
from edgekit.spec import Feeds

_NODE_SUFFIX = "_kernel_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One run of a model, node by node.

    Args:
        providers: for each provider that ran nodes, how many of which operator.
        optimized: operators of the graph that ONNX Runtime runs, after its fusions for this machine.
    """

    providers: Mapping[str, Mapping[str, int]]
    optimized: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "providers": {name: dict(counts) for name, counts in self.providers.items()},
            "optimized": dict(self.optimized),
        }


def nodes_by_provider(model: Path, provider: str = "cpu", threads: int = 1, *, feeds: Feeds | None = None) -> Placement:
    """Run `model` once under ONNX Runtime's profiler and read who ran what.

    Args:
        model: the file.
        provider: the provider that is asked for.
        threads: intra-op threads.
        feeds: inputs; without them zeros, open dimensions at 1.

    Raises:
        ProviderError: the provider is unknown or absent, or not one node ran on it.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-placement-") as temporary:
        folder = Path(temporary)
        optimized = folder / "optimized.onnx"
        session = open_session(
            model, provider=provider, threads=threads, optimized_path=optimized, profile_prefix=folder / "profile"
        )
        given = feeds if feeds is not None else {value.name: _zeros(value) for value in session.get_inputs()}
        session.run(None, dict(given))
        events = json.loads(Path(session.end_profiling()).read_text())
        graph = ir.load(optimized).graph
        found = Counter(_operator(node.domain, node.op_type) for node in graph)
    ran: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_NODE_SUFFIX):
            ran[event["args"]["provider"]][event["args"]["op_name"]] += 1
    name = provider_name(provider)
    if not ran[name]:
        raise ProviderError(
            f"not one node ran on {name}, but on {', '.join(sorted(key for key, value in ran.items() if value))}",
            where=str(model),
            rule="a session runs on the provider that was asked for",
            way_out="give this provider the variant that was made for it (fp16 for CUDA), or ask for cpu",
        )
    return Placement(
        providers={key: dict(sorted(value.items())) for key, value in sorted(ran.items())},
        optimized=dict(sorted(found.items())),
    )


def _operator(domain: str, op_type: str) -> str:
    return f"{domain}.{op_type}" if domain not in ("", "ai.onnx") else op_type


def _zeros(value: Any) -> np.ndarray:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    return np.zeros([size if isinstance(size, int) else 1 for size in value.shape], dtype=dtype)
