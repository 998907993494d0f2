"""Files of a search's teacher, which mostly answer faster than it does in PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgekit.errors import EdgekitError, QuantizeError
from edgekit.export import Exported
from edgekit.quantize import Quantized, quantize
from edgekit.search.settings import SearchSettings
from edgekit.store import write_json
from edgekit.transfer import StandIn
from edgekit.validate import calibration_feeds
from edgekit.workload import Workload

FLOAT, INT8 = "fp32", "int8"


def make_files(
    folder: Path, exported: Callable[[Path], Exported], workload: Workload, settings: SearchSettings
) -> None:
    """Write the teacher's fp32 and int8 files into `folder`; neither, where it cannot be exported.

    Args:
        folder: of the stage.
        exported: writes the fp32 file.
        workload: its calibration split is what the int8 file's ranges are from.
        settings: of the search.
    """
    # A teacher has only to answer; what cannot be exported answers in PyTorch.
    with suppress(EdgekitError):
        source = exported(folder / f"{FLOAT}.onnx")
        write_json(folder / f"{FLOAT}.json", source.to_dict())
        with suppress(QuantizeError):
            made = quantize(
                source.path,
                list(calibration_feeds(workload, source.spec)),
                folder / f"{INT8}.onnx",
                spec=source.spec,
                target=settings.target,
                ranges=settings.ranges,
                # Measured placements are the fastest for one sample; a teacher answers batches.
                placement="rules",
                threads=settings.threads,
            )
            write_json(folder / f"{INT8}.json", made.to_dict())


def files_in(folder: Path, settings: SearchSettings) -> list[StandIn]:
    """What `make_files` has left in `folder`, the plainest first."""
    found = []
    if (folder / f"{FLOAT}.json").is_file():
        source = Exported.from_dict(json.loads((folder / f"{FLOAT}.json").read_text()), folder)
        found.append(StandIn(name=FLOAT, path=source.path, spec=source.spec))
    if (folder / f"{INT8}.json").is_file():
        made = Quantized.from_dict(json.loads((folder / f"{INT8}.json").read_text()), folder)
        found.append(StandIn(name=INT8, path=made.path, spec=made.spec, target=settings.target))
    return found
