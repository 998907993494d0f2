"""The report: every figure of a run with its interval, its n and the conditions it was taken under."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.stats import Estimate
from edgekit.store import write_json

FORMAT, VERSION = "edgekit-report", "1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """One file on the way from the original to the result, measured like all others in the same run.

    `metric` and `drop` are in the metric's points on the test split, `drop` paired with the original fp32 file;
    `latency` is milliseconds for one sample; the ratios say how many times faster than the named file, by interleaved
    rounds. `device` is None where this machine is the device; else the milliseconds that are predicted for it, with
    their interval and the known median error of such predictions.
    """

    stage: str
    file: str
    sha256: str
    metric: Estimate
    drop: Estimate
    agreement: Estimate
    fixed: int
    broken: int
    latency: Estimate
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    ratio_to_fp32: Estimate
    ratio_to_int8: Estimate | None
    speed_verdict: str
    size_bytes: int
    parameters: int
    macs: int
    load_ms: float
    first_ms: float
    peak_bytes: int
    nodes: Mapping[str, Any]
    details: Mapping[str, Any]
    device: Mapping[str, Any] | None = None

    @property
    def latency_on_device_ms(self) -> float:
        """What a limit on latency is held against: predicted where the device is another machine, else measured."""
        return self.latency.value if self.device is None else float(self.device["ms"])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        estimates = ("metric", "drop", "agreement", "latency", "ratio_to_fp32", "ratio_to_int8")
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in estimates}
        measured = {name: None if getattr(self, name) is None else getattr(self, name).to_dict() for name in estimates}
        return {**plain, **measured, "nodes": dict(self.nodes), "details": dict(self.details)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRow:
    """What became of one execution provider that was asked for."""

    provider: str
    status: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"provider": self.provider, "status": self.status, "detail": dict(self.detail)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the budget holds on the test split, and by which file."""

    holds: bool
    chosen: str
    broken: tuple[str, ...]
    text: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"holds": self.holds, "chosen": self.chosen, "broken": list(self.broken), "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a run of `compress` found. `to_dict` is what `report.json` and `--json` hold.

    `behaviour` says what changed between the original and the chosen file besides the metric's mean, on the test split,
    in the form that `edgekit.validate.behaviour` describes; it is empty where the original itself was chosen.
    `explanations` says how far the chosen file looks where the original looks; `edgekit.explain` has its shape.
    `operators` holds what each kernel of each file takes under ONNX Runtime's profiler. `others` holds for each further
    kind of CPU the file of the chosen network on the test split (`target`, `file`, `metric`, `drop`, `agreement`,
    `broken` limits in words), or `why` there is none.
    """

    name: str
    metric: str
    unit: str
    verdict: Verdict
    budget: Mapping[str, Any]
    settings: Mapping[str, Any]
    stages: Sequence[StageRow]
    providers: Sequence[ProviderRow]
    splits: Mapping[str, Any]
    choices: Sequence[Mapping[str, Any]]
    rounds: Sequence[Mapping[str, Any]]
    candidates: Sequence[Mapping[str, Any]]
    front: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    environment: Mapping[str, Any]
    seconds: Mapping[str, float]
    bundle: str
    report: str
    next_commands: Sequence[str]
    behaviour: Mapping[str, Any] = field(default_factory=dict)
    explanations: Mapping[str, Any] = field(default_factory=dict)
    operators: Mapping[str, Any] = field(default_factory=dict)
    others: Sequence[Mapping[str, Any]] = ()

    def row(self, stage: str) -> StageRow:
        """The row of one stage."""
        return next(row for row in self.stages if row.stage == stage)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        nested = {
            "verdict": self.verdict.to_dict(),
            "stages": [row.to_dict() for row in self.stages],
            "providers": [row.to_dict() for row in self.providers],
        }
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in nested}
        return {"format": FORMAT, "version": VERSION, **plain, **nested}

    def save(self, path: Path) -> None:
        """Write `report.json`, atomically."""
        write_json(path, json.loads(json.dumps(self.to_dict())))
