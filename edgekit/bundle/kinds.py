"""One network's files for several kinds of CPU, in the order in which devices look at them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.bundle.write import Variant


def variants_for_kinds(chosen: Variant, others: Mapping[str, Path | None], source: Path) -> dict[str, Variant]:
    """The variants of a bundle for CPUs, by name: a device takes the first that it can run as it is meant to be run.

    Args:
        chosen: the file for the kind of CPU that was asked for first.
        others: by further kind its int8 file, or None where it has none of its own.
        source: the fp32 file of the same network, for kinds without a file.

    >>> int8 = Variant(path=Path("a.onnx"), precision="int8", target="arm64")
    >>> list(variants_for_kinds(int8, {"x86-vnni": Path("b.onnx"), "x86-avx2": None}, Path("c.onnx")))
    ['cpu-int8-x86-vnni', 'cpu-int8', 'cpu-fp32']
    """
    if chosen.target == "any":
        return {f"cpu-{chosen.precision}": chosen}
    paths = {chosen.target: chosen.path} | {kind: path for kind, path in others.items() if path is not None}
    # Processors with VNNI run files for AVX2 as they are meant to be, too, and would take what comes first.
    order = sorted(paths, key=lambda target: target != "x86-vnni")
    found = {
        "cpu-int8" if target == chosen.target else f"cpu-int8-{target}": Variant(
            path=paths[target], precision="int8", target=target
        )
        for target in order
    }
    if len(found) <= len(others):
        found["cpu-fp32"] = Variant(path=source)
    return found
