"""Joules from the counters of the processor itself (RAPL), where Linux lets this process read them.

The counters are those of whole packages: whatever else runs meanwhile is in them. Intel and AMD processors have them;
most systems let only root read them, virtual machines have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rapl:
    """The package counters of a machine.

    Attributes:
        zones: the folder of each package, by its name.
        ranges: microjoules after which each begins anew.
    """

    zones: Mapping[str, Path]
    ranges: Mapping[str, int]

    def read(self) -> dict[str, int]:
        """Microjoules of each package so far; without those that cannot be read now."""
        found = {name: _number(folder / "energy_uj") for name, folder in self.zones.items()}
        return {name: value for name, value in found.items() if value is not None}

    def joules(self, before: Mapping[str, int], after: Mapping[str, int]) -> float | None:
        """What all packages took between two readings; None where one of them is missing in either."""
        if not before or before.keys() != after.keys():
            return None
        # A counter begins anew at its range; within one loop it does so once at most.
        return sum((after[name] - before[name]) % self.ranges[name] for name in before) / 1e6


def rapl(root: Path = POWERCAP) -> Rapl | None:
    """The counters that this process may read; None where there are none.

    Sub-zones (cores, uncore, memory: `intel-rapl:0:0`) are left out: what they count is in their package, or overlaps.
    """
    zones: dict[str, Path] = {}
    ranges: dict[str, int] = {}
    for folder in sorted(root.glob("*-rapl:*")):
        if folder.name.count(":") != 1 or "mmio" in folder.name:
            continue
        limit = _number(folder / "max_energy_range_uj")
        if limit and _number(folder / "energy_uj") is not None:
            zones[folder.name], ranges[folder.name] = folder, limit
    return Rapl(zones=zones, ranges=ranges) if zones else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
