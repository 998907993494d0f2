"""What each kernel takes, as ONNX Runtime's own profiler tells."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

_SUFFIX = "_kernel_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One node of the graph that ONNX Runtime runs.

    Attributes:
        name: the node's name there, which comes from a node of the file.
        operator: what it is.
        provider: who ran it.
        us: microseconds of a run, the mean of the middle half of all runs (the profiler counts whole microseconds, so a
            median would too).
    """

    name: str
    operator: str
    provider: str
    us: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """All kernels of a model, in the order in which they run.

    Attributes:
        rows: the kernels.
        run_us: a whole run under the profiler, which slows it.
        arena_bytes: the most that ONNX Runtime's arena held; None where it does not tell.
    """

    rows: tuple[Kernel, ...]
    run_us: float
    arena_bytes: int | None

    def by_provider(self) -> dict[str, int]:
        """How many kernels each provider ran."""
        return dict(sorted(Counter(row.provider for row in self.rows).items()))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {**asdict(self), "rows": [row.to_dict() for row in self.rows]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        rows = tuple(Kernel.from_dict(row) for row in data["rows"])
        return cls(rows=rows, run_us=data["run_us"], arena_bytes=data["arena_bytes"])


def read_kernels(path: Path, *, skip: int = 1) -> Kernels:
    """Read the file that ONNX Runtime's profiler wrote.

    Args:
        path: what `end_profiling` returned.
        skip: how many first runs do not count: they allocate and warm up.
    """
    events = json.loads(path.read_text())
    # Nodes of different branches may share a name; their index tells them apart.
    durations: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    about: dict[tuple[str, str], tuple[str, str]] = {}
    arena: list[int] = []
    runs = [event["dur"] for event in events if event.get("name") == "model_run"]
    for event in events:
        if event.get("cat") != "Node" or not str(event.get("name", "")).endswith(_SUFFIX):
            continue
        arguments = event["args"]
        key = (event["name"].removesuffix(_SUFFIX), str(arguments.get("node_index", "")))
        durations[key].append(event["dur"])
        about[key] = (arguments["op_name"], arguments["provider"])
        if "mem_arena_held" in arguments:
            arena.append(int(arguments["mem_arena_held"]))
    rows = tuple(
        Kernel(name=key[0], operator=about[key][0], provider=about[key][1], us=_middle(times[skip:] or times))
        for key, times in durations.items()
    )
    return Kernels(rows=rows, run_us=_middle(runs[skip:] or runs), arena_bytes=max(arena, default=None))


def _middle(times: Iterable[float]) -> float:
    ordered = np.sort(np.asarray(list(times), float))
    quarter = len(ordered) // 4
    return round(float(np.mean(ordered[quarter : len(ordered) - quarter])), 3) if len(ordered) else 0.0
