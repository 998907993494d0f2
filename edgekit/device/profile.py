"""What a device really does: which operators have an int8 kernel that fuses there, and what each costs in both forms.

A profile is made by running small graphs; `edgekit.quantize.probe` makes the graphs and reads what became of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from edgekit.errors import EdgekitError
from edgekit.store import write_json

FORMAT, VERSION = "edgekit-profile", 1
SHIPPED = Path(__file__).parent / "profiles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Microseconds of one operator: `base_us`, and `rate_us` for each thousand units of its work."""

    base_us: float
    rate_us: float

    def of(self, work: float) -> float:
        """Predicted microseconds for `work` units.

        >>> Cost(base_us=2.0, rate_us=0.5).of(4000)
        4.0
        """
        return self.base_us + self.rate_us * work / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One operator, or a few that belong together, as the device runs them.

    Args:
        unit: what its work is counted in: `MACs`, or `elements` of the input or output, whichever has more.
        fp32: cost in fp32.
        int8: cost between 8-bit integers; where it does not fuse, with the DQ and Q around its fp32 kernel.
        fused: by the type of its activations (`uint8`, `int8`), whether no Q or DQ was left of it.
        kernels: operators of the optimized int8 graph, with `uint8` activations.
    """

    unit: str
    fp32: Cost
    int8: Cost
    fused: Mapping[str, bool]
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """The patterns of one kind of device, and where and how they were measured.

    Args:
        target: `x86-vnni`, `x86-avx2` or `arm64`.
        threads: intra-op threads.
        environment: of the measurement: processor, versions.
        patterns: by name, such as `Conv.depthwise` or `Add`.
    """

    target: str
    threads: int
    environment: Mapping[str, Any]
    patterns: Mapping[str, Pattern]

    def fuses(self, name: str, dtype: str) -> bool:
        """Whether a pattern runs in int8 without Q and DQ around it; what was not probed does not."""
        pattern = self.patterns.get(name)
        return pattern is not None and pattern.fused.get(dtype, False)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "target": self.target,
            "threads": self.threads,
            "environment": dict(self.environment),
            "patterns": {name: asdict(pattern) for name, pattern in self.patterns.items()},
        }

    @classmethod
    def from_dict(cls, data: Any, where: str = "profile") -> Self:
        """Read what `to_dict` wrote.

        Raises:
            EdgekitError: it is of another version, or no profile.
        """
        if not isinstance(data, dict) or (data.get("format"), data.get("version")) != (FORMAT, VERSION):
            raise EdgekitError(
                "no profile of this version",
                where=where,
                rule=f"{FORMAT} of version {VERSION}",
                way_out="make it again with `edgekit profile`",
            )
        try:
            return cls(
                target=str(data["target"]),
                threads=int(data["threads"]),
                environment=dict(data["environment"]),
                patterns={
                    str(name): Pattern(
                        unit=str(row["unit"]),
                        fp32=Cost(**row["fp32"]),
                        int8=Cost(**row["int8"]),
                        fused={str(dtype): bool(fused) for dtype, fused in row["fused"].items()},
                        kernels=tuple(map(str, row["kernels"])),
                    )
                    for name, row in data["patterns"].items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EdgekitError(
                f"{type(error).__name__}: {error}",
                where=where,
                rule="what `edgekit profile` writes",
                way_out="make it again",
            ) from error

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        write_json(path, self.to_dict())


def load_profile(path: Path) -> DeviceProfile:
    """Read a profile from a file.

    Raises:
        EdgekitError: the file is missing or no profile.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise EdgekitError(
            f"cannot read: {error.strerror}", where=str(path), rule="a profile", way_out="`edgekit profile` makes one"
        ) from error
    try:
        return DeviceProfile.from_dict(json.loads(text), str(path))
    except ValueError as error:
        raise EdgekitError(f"no JSON: {error}", where=str(path), rule="a profile", way_out="make it again") from error


def shipped_profile(target: str) -> DeviceProfile:
    """The profile that comes with edgekit for a kind of device; one that has none takes that of `x86-vnni`.

    What fuses is nearly the same everywhere, and so is which of two forms is faster; a profile of the device itself is
    better.
    """
    path = SHIPPED / f"{target}.json"
    return load_profile(path if path.is_file() else SHIPPED / "x86-vnni.json")
