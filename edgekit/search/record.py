"""`front.json`: the front of a run with all that bundling any of its points takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from edgekit.errors import EdgekitError
from edgekit.report import Mark, picture
from edgekit.search.front import Point
from edgekit.stats import Estimate
from edgekit.store import file_sha256, write_json
from edgekit.workload import WorkloadConfig

FORMAT, VERSION = "edgekit-front", "1.0"
FRONT, PICTURE = "front.json", "front.png"
AXES = ("ms", "drop in points, selection split")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A point of the front with its file.

    Args:
        point: as it was measured; its drop on the selection split.
        file: the ONNX file, as a path from the run's folder.
        source: the fp32 file that it was made from, or is; likewise.
        sha256: of `file`.
        precision: `fp32` or `int8`.
        target: the kind of device that `file` is for; `any` for fp32.
        choices: what it was made by.
        test: metric and drop on the test split, latency and ratio measured there, JSON-ready.
        broken: gates that it breaks on the selection split, in words; there are such points only where none holds all.
        rungs: of the quantization ladder that led to the file, if there was one, JSON-ready.
    """

    point: Point
    file: str
    source: str
    sha256: str
    precision: str
    target: str
    choices: Mapping[str, Any]
    test: Mapping[str, Any] = field(default_factory=dict)
    broken: Sequence[str] = ()
    rungs: Sequence[Mapping[str, Any]] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "point"}
        return {**self.point.to_dict(), **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        plain = {name: data[name] for name in cls.__slots__ if name in data and name != "point"}
        tuples = {name: tuple(data.get(name, ())) for name in ("broken", "rungs")}
        return cls(**{**plain, **tuples, "point": point_from(data)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The front of a run.

    Args:
        name: of the workload.
        metric: its metric.
        unit: of the metric.
        workload: what data and task were, so that a bundle can be made later.
        members: the points, the fastest first; point 1 is the first.
        others: the points that are not on it.
        reference: the file that drops and ratios refer to.
        details: what else the run found, JSON-ready.
    """

    name: str
    metric: str
    unit: str
    workload: WorkloadConfig
    members: Sequence[Member]
    others: Sequence[Point] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def member(self, number: int) -> Member:
        """Point `number`, from 1.

        Raises:
            EdgekitError: there is no such point.
        """
        if not 1 <= number <= len(self.members):
            raise EdgekitError(f"got {number}", where="--point", rule=f"1 to {len(self.members)}")
        return self.members[number - 1]

    @property
    def marks(self) -> list[Mark]:
        """The points as they are drawn: those of the front by their numbers."""
        others = [Mark(x=point.latency_ms, y=point.drop.value) for point in self.others]
        points = [each.point for each in self.members]
        numbered = [Mark(x=p.latency_ms, y=p.drop.value, label=str(number)) for number, p in enumerate(points, 1)]
        return [*others, *numbered]

    def chosen(self, *, max_latency_ms: float | None, max_drop: float | None, margin: float = 0.0) -> int | None:
        """The number of the fastest point within limits and gates on the selection split; None if there is none.

        Without a limit on the drop, the most accurate one.

        Args:
            max_latency_ms: the limit on the latency, or None.
            max_drop: the limit on the drop, or None.
            margin: standard errors that the drop has to be below its limit by, where any point's is; else its value
                alone counts.
        """
        quick = [
            (number, each.point)
            for number, each in enumerate(self.members, 1)
            if not each.broken and (max_latency_ms is None or each.point.latency_ms <= max_latency_ms)
        ]
        if max_drop is None:
            return min(quick, key=lambda pair: (pair[1].drop.value, pair[1].latency_ms), default=(None,))[0]
        for errors in (margin, 0.0):
            for number, point in quick:
                if point.drop.raised(errors) <= max_drop:
                    return number
        return None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "metric": self.metric,
            "unit": self.unit,
            "points": [{"number": number, **each.to_dict()} for number, each in enumerate(self.members, 1)],
            "others": [point.to_dict() for point in self.others],
            "reference": dict(self.reference),
            "workload": self.workload.to_dict(),
            **self.details,
        }

    def save(self, run: Path) -> None:
        """Write `front.json` and its picture into the run's folder."""
        picture(self.marks, run / PICTURE, title=f"{self.name}: {self.metric}", x=AXES[0], y=AXES[1])
        write_json(run / FRONT, self.to_dict())

    @classmethod
    def load(cls, run: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            EdgekitError: there is no such file, or it is none of ours.
        """
        try:
            data = json.loads((run / FRONT).read_text())
            if (data["format"], data["version"].partition(".")[0]) != (FORMAT, VERSION.partition(".")[0]):
                raise ValueError(f"{data['format']} {data['version']}")  # noqa: TRY301 - one message for all of it
            known = {"format", "version", "name", "metric", "unit", "points", "others", "reference", "workload"}
            return cls(
                name=data["name"],
                metric=data["metric"],
                unit=data["unit"],
                workload=WorkloadConfig.from_dict(data["workload"]),
                members=tuple(map(Member.from_dict, data["points"])),
                others=tuple(map(point_from, data["others"])),
                reference=data["reference"],
                details={name: value for name, value in data.items() if name not in known},
            )
        except OSError as error:
            raise EdgekitError(
                f"no {FRONT} here: {error.strerror}",
                where=str(run),
                rule="the folder of a finished run",
                way_out="run `edgekit compress` or `edgekit search` with --out here first",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EdgekitError(
                f"cannot read it: {type(error).__name__}: {error}", where=str(run / FRONT), rule=f"{FORMAT} {VERSION}"
            ) from error

    def file(self, run: Path, member: Member) -> Path:
        """The member's file, whose bytes are those that were measured.

        Raises:
            EdgekitError: it is gone or was changed.
        """
        path = run / member.file
        if not path.is_file() or file_sha256(path) != member.sha256:
            raise EdgekitError(
                "the file is gone or is not the one that was measured",
                where=str(path),
                rule=f"SHA-256 {member.sha256[:16]}…",
                way_out="start the same run again: it makes again what is missing",
            )
        return path


def point_from(data: Mapping[str, Any]) -> Point:
    """Read what `Point.to_dict` wrote."""
    return Point(
        name=str(data["name"]),
        latency_ms=float(data["latency_ms"]),
        drop=Estimate(**data["drop"]),
        size_bytes=int(data["size_bytes"]),
    )
