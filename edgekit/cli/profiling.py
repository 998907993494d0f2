"""`edgekit profile MODEL.onnx`: what a network's pieces cost on a device, and what the whole takes by that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cli import show
from edgekit.errors import EdgekitError
from edgekit.units import format_latency

if TYPE_CHECKING:  # They need onnx, and --help need not wait for it.
    from edgekit.device.costs import MeasuredCosts
    from edgekit.profiling import Piece

COSTLIEST = 10


def profile_networks(
    files: Sequence[Path],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    request: Path | None,
    costs: Path | None,
    host: str | None,
    python: str,
    threads: int,
    time_s: float,
    out: Path,
    json: bool,
) -> None:
    """Write a request; or time here or on `host`, unless the costs are given, and print what the files are to take."""
    from edgekit.device.costs import load_costs
    from edgekit.profiling import pieces

    found = {path: pieces(path, _of_file(path, shapes, files)) for path in files}
    if request is not None:
        _write(request, found, json=json)
        return
    if costs is None:
        costs = out
        _time(found, host=host, python=python, threads=threads, time_s=time_s, out=out, quiet=json)
    known = load_costs(costs)
    if json:
        show.data({"costs": str(costs), "files": {str(path): _told(each, known) for path, each in found.items()}})
        return
    for path, each in found.items():
        _show(path, each, known)
    if costs == out:
        show.out.print(f"wrote {out}", markup=False)


def sizes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`x=1x3x32x32` as sizes by the input's name.

    >>> sizes(["x=1x3x32x32"])
    {'x': (1, 3, 32, 32)}
    """
    found = {}
    for text in texts:
        name, _, shape = text.rpartition("=")
        parts = shape.split("x")
        if not name or not all(part.isdigit() and int(part) for part in parts):
            raise EdgekitError(f"got {text!r}", where="--shape", rule="INPUT=SIZES such as x=1x3x224x224")
        found[name] = tuple(map(int, parts))
    return found


def _of_file(path: Path, shapes: Mapping[str, tuple[int, ...]], files: Sequence[Path]) -> Mapping[str, tuple[int, ...]]:
    """Of several files, each takes the sizes of the inputs that it has."""
    if not shapes or len(files) == 1:
        return shapes
    from edgekit.cli.onnx_files import spec_of

    names = {tensor.name for tensor in spec_of(path).inputs}
    return {name: shape for name, shape in shapes.items() if name in names}


def _write(path: Path, found: Mapping[Path, Sequence[Piece]], *, json: bool) -> None:
    from edgekit.device.request import write_request
    from edgekit.profiling import graphs

    every = graphs([piece for each in found.values() for piece in each])
    write_request(path, every)
    if json:
        show.data({"request": str(path), "graphs": len(every), "size_bytes": path.stat().st_size})
    else:
        show.out.print(
            f"wrote {path}: {len(every)} graphs. On the device: "
            f"python -m edgekit.device profile {path.name} --out costs.json",
            markup=False,
        )


def _time(
    found: Mapping[Path, Sequence[Piece]],
    *,
    host: str | None,
    python: str,
    threads: int,
    time_s: float,
    out: Path,
    quiet: bool,
) -> None:
    from edgekit.device.costs import load_costs
    from edgekit.device.timing import time_graphs
    from edgekit.profiling import graphs
    from edgekit.profiling.remote import time_graphs_on

    every = graphs([piece for each in found.values() for piece in each])
    known = load_costs(out) if out.exists() else None

    def keep(costs: MeasuredCosts) -> None:
        costs.save(out)

    with show.progress(quiet=quiet) as progress:
        if host is None:
            time_graphs(every, keep=keep, known=known, threads=threads, time_s=time_s, progress=progress)
        else:
            time_graphs_on(
                host,
                every,
                keep=keep,
                known=known,
                python=python,
                threads=threads,
                time_s=time_s,
                progress=progress,
            )


def _told(found: Sequence[Piece], costs: MeasuredCosts) -> dict[str, Any]:
    from edgekit.profiling import error_of, predict, shares

    prediction, error = predict(found, costs), error_of(found)
    return {
        "predicted_us": prediction.us,
        "interval_us": [prediction.low, prediction.high],
        "error": {"median": error.median, "worst": error.worst},
        "missing": list(prediction.missing),
        "pieces": [
            {"us": row.us, "count": row.piece.count, "precision": row.piece.precision, "text": row.piece.text}
            for row in shares(found, costs)
        ],
    }


def _show(path: Path, found: Sequence[Piece], costs: MeasuredCosts) -> None:
    from edgekit.profiling import error_of, predict, shares

    prediction, error, rows = predict(found, costs), error_of(found), shares(found, costs)
    show.table(
        f"{path.name}: the costliest of {len(rows)} kinds of pieces",
        ("piece", "precision", "times", "in all", "share"),
        [
            (
                row.piece.text,
                row.piece.precision,
                str(row.piece.count),
                format_latency(row.us / 1e3),
                f"{row.us / prediction.us:.1%}",
            )
            for row in rows[:COSTLIEST]
        ],
    )
    interval = f"[{format_latency(prediction.low / 1e3)}, {format_latency(prediction.high / 1e3)}]"
    show.out.print(
        f"{path.name}: predicted {format_latency(prediction.us / 1e3)} {interval} with {costs.threads} thread(s) on "
        f"{costs.device[0]}; on the reference networks such predictions were off by {error.median:.0%} (median), "
        f"{error.worst:.0%} (worst)",
        markup=False,
    )
    if prediction.missing:
        show.out.print(
            f"{path.name}: {len(prediction.missing)} kinds of pieces have no costs and are not in that, such as "
            f"{prediction.missing[0]}: time them with `edgekit profile {path} --out COSTS`",
            markup=False,
        )
