"""A machine, as `edgekit.device.environment.describe` found it, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgekit.units import format_bytes

NAMES = {
    "model": "processor",
    "flags": "instruction sets",
    "governor": "frequency governor",
    "frequency_mhz": "frequency",
    "temperature_c": "temperature",
    "load_average": "load average (1, 5, 15 min)",
    "isa_target": "target that fits it",
    "memory_bytes": "memory",
    "os": "operating system",
    "python": "Python",
    "versions": "version",
    "providers": "ONNX Runtime's providers",
    "gpus": "GPUs",
}
"""Entries that have another name for people."""


def machine_facts(machine: Mapping[str, Any]) -> dict[str, str]:
    """What `edgekit.device.environment.describe` found, by names that people read."""
    return dict(_flat(machine))


def _flat(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    """Nested entries by their path, as people read them; what could not be read is left out."""
    for key, value in values.items():
        name = f"{where}{NAMES.get(key, key)}"
        if isinstance(value, Mapping):
            yield from _flat(value, "" if key == "cpu" else f"{name}: ")
        elif value not in (None, [], ""):
            yield name, said(key, value)


def said(key: str, value: Any) -> str:
    """A value with its unit, as the entry of this name has one."""
    if key == "memory_bytes":
        return format_bytes(value)
    if key == "frequency_mhz":
        return f"{value:.0f} MHz"
    if key == "temperature_c":
        return f"{value:.0f} °C"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
