"""A finished run as its folder holds it, checked before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.report.report import FORMAT, VERSION

REPORT, FRONT, RAW = "report.json", "front.json", "latency-raw.json"
IN_BUNDLE = "edgekit/report.json"

_ESTIMATE = ("value", "low", "high")
_NEEDED: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "metric": (str,),
    "unit": (str,),
    "verdict": (dict,),
    "budget": (dict,),
    "settings": (dict,),
    "stages": (list,),
    "splits": (dict,),
    "environment": (dict,),
    "seconds": (dict,),
}
"""What reports of every version have."""
_ROW: dict[str, tuple[type, ...]] = {
    "stage": (str,),
    "sha256": (str,),
    "metric": (dict,),
    "drop": (dict,),
    "agreement": (dict,),
    "latency": (dict,),
    "ratio_to_fp32": (dict,),
    "size_bytes": (int,),
    "parameters": (int,),
    "macs": (int,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """What a run left.

    Args:
        folder: where it lies.
        report: `report.json`, of this version or an older one.
        latencies: `latency-raw.json`: the calls of each file that was timed; empty where it is not there.
        workload: what the model, the data and the task were, as `front.json` has it; empty likewise.
    """

    folder: Path
    report: Mapping[str, Any]
    latencies: Mapping[str, Any] = field(default_factory=dict)
    workload: Mapping[str, Any] = field(default_factory=dict)


def read_run(path: Path) -> SavedRun:
    """Read the run in a folder (or the report in a bundle), or one `report.json`.

    Raises:
        EdgekitError: there is no finished run, or what is there is none of ours; the message says what to do.
    """
    at, folder = _find(path)
    report = _read(at)
    _check(report, at)
    raw = _read(folder / RAW) if (folder / RAW).is_file() else {}
    front = _read(folder / FRONT) if (folder / FRONT).is_file() else {}
    return SavedRun(
        folder=folder,
        report=report,
        latencies={name: each for name, each in raw.items() if isinstance(each, dict) and each.get("samples_ms")},
        workload=front.get("workload") or {},
    )


def _find(path: Path) -> tuple[Path, Path]:
    """The report, and the folder that the run's other files lie in."""
    if path.is_file():
        return path, path.parent
    if not path.exists():
        raise EdgekitError(
            "there is nothing here",
            where=str(path),
            rule="the folder of a finished run, or its report.json",
            way_out="`edgekit compress` and `edgekit demo` leave one in edgekit-runs/NAME",
        )
    for at in (path / REPORT, path / IN_BUNDLE):
        if at.is_file():
            return at, path
    if (path / FRONT).is_file():
        problem, way_out = (
            "a search, which leaves a front and no report",
            f"bundle a point of it: edgekit bundle --run {path} --point 1",
        )
    elif (path / "stages").is_dir():
        problem, way_out = (
            "the run has not finished",
            "start the same `edgekit compress` command again: it goes on where it stopped, and writes the report",
        )
    else:
        problem, way_out = f"no {REPORT} here", "name the folder that `edgekit compress --out` was given"
    raise EdgekitError(
        problem, where=str(path), rule=f"the folder of a finished run, with its {REPORT}", way_out=way_out
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgekitError(f"cannot read: {error.strerror}", where=str(path), rule="a readable file") from error
    except ValueError as error:
        raise EdgekitError(
            f"no JSON: {error}",
            where=str(path),
            rule="the file as edgekit wrote it",
            way_out="start the run again: what is finished is not done twice",
        ) from error
    return data if isinstance(data, dict) else {}


def _check(report: Mapping[str, Any], at: Path) -> None:
    """Refuse what is no report of ours, by the path of the fault."""
    major = VERSION.partition(".")[0]
    name, version = report.get("format"), str(report.get("version", ""))
    if name != FORMAT or version.partition(".")[0] != major:
        found = f"{name} {version}".strip() if name else "no report of edgekit"
        way_out = (
            "install the edgekit that wrote it" if name == FORMAT else "name the folder of an `edgekit compress` run"
        )
        raise EdgekitError(found, where=str(at), rule=f"{FORMAT} {major}.x", way_out=way_out)

    def need(holds: bool, where: str, rule: str) -> None:  # noqa: FBT001 - it reads as a sentence
        if not holds:
            raise EdgekitError(
                f"{where} is missing or of another type",
                where=str(at),
                rule=rule,
                way_out="take the file as edgekit wrote it, or start the run again",
            )

    _check_entries(report, _NEEDED, "", need)
    stages = report["stages"]
    need(bool(stages), "stages", "at least one row")
    for index, row in enumerate(stages):
        where = f"stages[{index}]"
        need(isinstance(row, dict), where, "an object")
        _check_entries(row, _ROW, f"{where}.", need)
        for key in ("metric", "drop", "agreement", "latency", "ratio_to_fp32"):
            numbers = [row[key].get(part) for part in _ESTIMATE]
            need(all(map(_is_number, numbers)), f"{where}.{key}", "an object of numbers: value, low, high")
    chosen = report["verdict"].get("chosen")
    need(chosen in [row["stage"] for row in stages], "verdict.chosen", "the name of one of the stages")


def _check_entries(
    entries: Mapping[str, Any],
    wanted: Mapping[str, tuple[type, ...]],
    where: str,
    need: Callable[[bool, str, str], None],
) -> None:
    for key, types in wanted.items():
        need(isinstance(entries.get(key), types), f"{where}{key}", " or ".join(kind.__name__ for kind in types))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
