"""What small graphs took on a device, and under which conditions: one JSON file that grows while they are timed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, Self

from edgekit.device.environment import processor_in
from edgekit.device.strict_json import parse
from edgekit.errors import BundleError, EdgekitError
from edgekit.store import write_json

FORMAT, VERSION = "edgekit-costs", 1
MAKE_AGAIN = "make it again with `edgekit profile MODEL.onnx --out FILE`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Microseconds of one call of one graph.

    Args:
        us: median over rounds.
        low: lower end of its 95 % interval.
        high: upper end.
        n: rounds.
        sweeps: stretches of time, apart from each other, in which it was timed; this is the fastest.
    """

    us: float
    low: float
    high: float
    n: int
    sweeps: int = 1

    def or_faster(self, other: Measured) -> Measured:
        """The faster of two stretches: other work on the machine only ever adds."""
        return replace(min(self, other, key=lambda row: row.us), sweeps=self.sweeps + other.sweeps)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCosts:
    """What graphs cost on one device.

    Args:
        threads: intra-op threads.
        provider: `cpu`, `cuda` or `tensorrt`.
        measured: by the graph's key.
        failed: why the device did not run a graph, by key.
        conditions: for each stretch of measuring, the device `before` and `after` it (`environment.describe`).
    """

    threads: int
    provider: str
    measured: Mapping[str, Measured]
    failed: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[Mapping[str, Any], ...] = ()

    def merge(self, other: MeasuredCosts) -> Self:
        """With the rows of `other`, which win where both have one.

        Raises:
            EdgekitError: they were measured on different processors, versions of ONNX Runtime, providers or threads.
        """
        mine, theirs = self.device, other.device
        if self.conditions and other.conditions and mine != theirs:
            raise EdgekitError(
                f"measured on {_shown(theirs)}",
                where="costs to merge",
                rule=f"measured on {_shown(mine)}",
                way_out="keep one file for each device, or name another with --out",
            )
        measured = {**self.measured, **other.measured}
        failed = {key: reason for key, reason in {**self.failed, **other.failed}.items() if key not in measured}
        return type(self)(
            threads=other.threads,
            provider=other.provider,
            measured=measured,
            failed=failed,
            conditions=self.conditions + other.conditions,
        )

    @property
    def isa_target(self) -> str | None:
        """Which int8 file suits the device, as `environment.isa_target` names it; None before anything was measured."""
        return self.conditions[0]["before"].get("isa_target") if self.conditions else None

    @property
    def device(self) -> tuple[str, ...]:
        """What has to be the same for costs to be of one device."""
        about = self.conditions[0]["before"] if self.conditions else {}
        versions = about.get("versions", {})
        runtime = versions.get("onnxruntime") or versions.get("onnxruntime-gpu")
        return (processor_in(about), f"onnxruntime {runtime}", self.provider, f"{self.threads} thread(s)")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "threads": self.threads,
            "provider": self.provider,
            "measured": {key: asdict(row) for key, row in self.measured.items()},
            "failed": dict(self.failed),
            "conditions": [dict(row) for row in self.conditions],
        }

    @classmethod
    def from_dict(cls, data: Any, where: str = "costs") -> Self:
        """Read what `to_dict` wrote.

        Raises:
            EdgekitError: it is of another version, or no costs.
        """
        if not isinstance(data, dict) or (data.get("format"), data.get("version")) != (FORMAT, VERSION):
            raise EdgekitError(
                "no costs of this version", where=where, rule=f"{FORMAT} of version {VERSION}", way_out=MAKE_AGAIN
            )
        try:
            return cls(
                threads=int(data["threads"]),
                provider=str(data["provider"]),
                measured={str(key): _row(row, f"{where}: {key}") for key, row in data["measured"].items()},
                failed={str(key): str(reason) for key, reason in data["failed"].items()},
                conditions=tuple({"before": dict(row["before"]), **row} for row in data["conditions"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EdgekitError(
                f"{type(error).__name__}: {error}",
                where=where,
                rule="what `edgekit profile` writes",
                way_out=MAKE_AGAIN,
            ) from error

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        write_json(path, self.to_dict())


def load_costs(path: Path) -> MeasuredCosts:
    """Read costs from a file.

    Raises:
        EdgekitError: the file is missing, or no costs.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EdgekitError(
            f"cannot read: {error.strerror}", where=str(path), rule="costs of a device", way_out=MAKE_AGAIN
        ) from error
    try:
        found = parse(data, str(path))
    except BundleError as error:
        raise EdgekitError(error.problem, where=str(path), rule="costs of a device", way_out=MAKE_AGAIN) from error
    return MeasuredCosts.from_dict(found, str(path))


def _row(row: Mapping[str, Any], where: str) -> Measured:
    figures = {name: float(row[name]) for name in ("us", "low", "high")}
    made = Measured(**figures, n=int(row["n"]), sweeps=int(row["sweeps"]))
    if not (0 <= made.low <= made.us <= made.high < math.inf and made.n > 0 and made.sweeps > 0):
        _refuse(made, where)
    return made


def _refuse(row: Measured, where: str) -> NoReturn:
    raise EdgekitError(f"got {row}", where=where, rule="0 <= low <= us <= high, n > 0, sweeps > 0", way_out=MAKE_AGAIN)


def _shown(device: tuple[str, ...]) -> str:
    return ", ".join(device)
