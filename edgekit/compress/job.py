"""The verb `compress`: from a trained model to a bundle and a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.compress.budget import Budget
from edgekit.compress.candidates import Candidate
from edgekit.compress.finish import finish
from edgekit.compress.ladder import Rung
from edgekit.compress.measuring import to_come_s
from edgekit.compress.pricing import Priced, price
from edgekit.compress.rounds import Outcome, Round, rounds
from edgekit.compress.run import Run
from edgekit.compress.screening import Screened, screen
from edgekit.compress.settings import Settings
from edgekit.compress.stages import (
    File,
    apart,
    exported_file,
    held_file,
    in_terms_of,
    quantized_file,
    selection_latency,
    selection_score,
)
from edgekit.compress.teaching import teaching
from edgekit.errors import EdgekitError, PruneError
from edgekit.progress import Progress, silent
from edgekit.prune import Action, Coupling, actions, analyse, importance, resolutions
from edgekit.report import Report, read_run
from edgekit.report.page import write_page
from edgekit.store import Store, write_json
from edgekit.validate import compare
from edgekit.validate.behaviour import Figures
from edgekit.workload import Workload, loader

RESERVE_SHARE, MOST_RESERVED = 0.08, 0.3
"""Of the time budget, for exporting, scoring and the final measurements after the last recovery: so much at least, more
by what these steps took for the unpruned files. Very short budgets are not kept rather than spent on measuring."""
IMPORTANCE_SAMPLES, IMPORTANCE_BATCH = 512, 64
APART, MOST_ATTEMPTS = 1.5, 3
"""A session of ONNX Runtime is slow for all its life now and then: of 38 measurements of ResNet-56 on an idle machine
one had its int8 file at 3.4 times its usual latency, beside others that were as fast as ever, and made a pruned file
seem as much faster."""


def compress(
    workload: Workload,
    budget: Budget,
    settings: Settings | None = None,
    *,
    out: str | Path,
    progress: Progress = silent,
) -> Report:
    """Make the fastest ONNX bundle of a trained model that the budget allows, and prove it.

    The original is exported and quantized; every pruning decision is priced by measurement; plans of rising boldness
    are applied, recovered with the original as teacher, quantized and scored on the selection split for as long as
    budget and time allow; the fastest file that holds the budget is chosen, and all files are scored once on the test
    split and timed in one interleaved run. If none holds the budget, the closest is kept and `report.verdict` says so.

    Stages are kept below `out`: the same call goes on where it was interrupted, and takes the same decisions.

    Args:
        workload: model, data, task.
        budget: the limits.
        settings: how to go about it; the defaults are for a CPU with AVX512-VNNI and one thread.
        out: folder of the run: `report.json`, the page `report.html`, the bundle `NAME.edgekit`, and the stages.
        progress: told all along.

    Returns:
        The report, which is also in `out/report.json`.

    Raises:
        EdgekitError: the model, the data or the machine is at fault; the message says how to mend it.
    """
    settings = settings or Settings()
    root = Path(out)
    store = Store(root / "stages")
    with store.locked():
        run = Run(store, workload, budget, settings, progress=progress)
        report = _Job(run, root).report()
        report.save(root / "report.json")
        write_page(read_run(root))
        return report


class _Job:
    """The order of the stages."""

    def __init__(self, run: Run, root: Path) -> None:
        self.run, self.root = run, root
        self.original = exported_file(run, "fp32", run.model, {})
        self.reference = selection_score(run, self.original)
        self._check_gates()
        self.candidates: list[Candidate] = []
        self.plain_ms: dict[str, float] = {}

    def report(self) -> Report:
        """All stages, from the original to the report."""
        int8 = self._quantized("int8", self.original)
        plain = [file for file in (self.original, int8) if isinstance(file, File)]
        self.candidates += [self._candidate(file, plain) for file in plain]
        notes = [f"int8: {int8}"] if isinstance(int8, str) else []
        if isinstance(int8, File):
            self._improve(self.candidates[-1], self.original, plain, notes)
        coupling = self._coupling(notes)
        priced: Priced | None = None
        screened: list[Screened] = []
        done: list[Round] = []
        if coupling is not None and isinstance(int8, File):
            priced = self._priced(coupling, int8)
            screened, done = self._recovered(priced.rungs, coupling, plain)
        self._improve_last(plain, notes)
        return finish(
            self.run,
            self.root,
            self.candidates,
            done=done,
            priced={} if priced is None else {**priced.to_dict(), "screened": [each.to_dict() for each in screened]},
            notes=notes,
        )

    def _recovered(
        self, rungs: Sequence[Rung[Action]], coupling: Coupling, plain: Sequence[File]
    ) -> tuple[list[Screened], list[Round]]:
        """Short recoveries that tell where to aim, and the long ones."""
        if not rungs:
            return [], []
        taught, reserve_s = teaching(self.run, plain), _reserve_s(self.run)
        screened = screen(self.run, rungs, coupling, taught=taught, reserve_s=reserve_s)
        done = rounds(
            self.run,
            rungs,
            screened,
            coupling,
            lambda number, model, key: self._judge(number, model, key, plain),
            taught=taught,
            reserve_s=reserve_s,
        )
        return screened, done

    def _quantized(self, stage: str, source: File) -> File | str:
        return quantized_file(self.run, stage, source, target=self.run.settings.target)

    def _improve(self, int8: Candidate, source: File, plain: Sequence[File], notes: list[str]) -> None:
        """Climb the quantization ladder where int8 alone breaks the budget by its drop or a gate."""
        stage = int8.file.stage
        better = held_file(self.run, stage, source, int8.file, self.reference)
        notes += [f"{stage}: {_said(rung)}" for rung in better.details.get("rungs", ())]
        if better.sha256 != int8.file.sha256:
            self.candidates.append(self._candidate(better, plain, int8.round))

    def _improve_last(self, plain: Sequence[File], notes: list[str]) -> None:
        """After the rounds: the int8 file of a pruned network that holds the budget in fp32 alone."""
        holds = {c.file.stage: self._is_good_enough(c) for c in self.candidates}
        lost = [
            (c, next(other.file for other in self.candidates if f"{other.file.stage}-int8" == c.file.stage))
            for c in self.candidates
            if c.round and holds.get(c.file.stage.removesuffix("-int8")) and not holds[c.file.stage]
        ]
        if lost:
            int8, source = min(lost, key=lambda pair: pair[0].latency_ms)
            self._improve(int8, source, plain, notes)

    def _is_good_enough(self, candidate: Candidate) -> bool:
        return self.run.judge.holds(self.run.judge.of(candidate.drop, candidate.changes))

    def _candidate(self, file: File, baseline: Sequence[File], pruned_from: int = 0) -> Candidate:
        """A file with what the selection split and an interleaved measurement say of it."""
        score = selection_score(self.run, file)
        comparison = compare(score, self.reference, self.run.workload.task)
        files = [*baseline, file] if file.stage not in [each.stage for each in baseline] else list(baseline)
        found = self._latencies(files)
        self.plain_ms = self.plain_ms or found
        ms = in_terms_of(self.plain_ms, found, _like(file, baseline).stage, file.stage)
        return Candidate(
            file=file,
            round=pruned_from,
            drop=comparison.drop,
            latency_ms=ms,
            changes=Figures.unchanged()
            if file.stage == self.original.stage
            else self.run.judge.changes(score, self.reference),
        )

    def _latencies(self, files: Sequence[File]) -> dict[str, float]:
        """Of the files, in a measurement that slowed all alike that were measured before; the best of some, else."""
        tried: list[dict[str, float]] = []
        while len(tried) < MOST_ATTEMPTS:
            tried.append(selection_latency(self.run, files, len(tried) + 1))
            if not self.plain_ms or apart(self.plain_ms, tried[-1]) < APART:
                return tried[-1]
        return min(tried, key=lambda found: apart(self.plain_ms, found))

    def _check_gates(self) -> None:
        """Refuse gates that no file could hold, before hours are spent on the way to them.

        Raises:
            EdgekitError: the task has no such figure, or no time is given to measure it.
        """
        budget, settings = self.run.budget, self.run.settings
        unchanged = self.run.judge.changes(self.reference, self.reference)
        budget.gates.before_the_end.require(unchanged, self.run.workload.task.name)
        if budget.gates.max_robustness_drop is not None and not settings.robustness_time_s > 0:
            raise EdgekitError(
                "no time to measure robustness in",
                where="--max-robustness-drop",
                rule="a gate is measured",
                way_out="give it some with --robustness-time",
            )

    def _judge(self, number: int, model: nn.Module, key: dict[str, Any], baseline: Sequence[File]) -> Outcome:
        exported = exported_file(self.run, f"pruned-{number}", model, key)
        quantized = self._quantized(f"pruned-{number}-int8", exported)
        files = [file for file in (exported, quantized) if isinstance(file, File)]
        made = [self._candidate(file, baseline, number) for file in files]
        self.candidates += made
        best = min(made, key=lambda candidate: candidate.latency_ms)
        return Outcome(
            stage=best.file.stage,
            drop=best.drop,
            latency_ms=best.latency_ms,
            size_bytes=best.file.path.stat().st_size,
            changes=best.changes,
        )

    def _coupling(self, notes: list[str]) -> Coupling | None:
        """What can be pruned; None, with a note, where torch.export refuses the model or nothing can be."""
        if not self.run.settings.max_rounds:
            return None
        try:
            coupling = analyse(self.run.model, self.run.workload.example(2))
        except PruneError as error:
            notes.append(f"not pruned: {error.problem}")
            return None
        if not (coupling.groups or coupling.blocks or self.run.settings.resolutions):
            reasons = "; ".join(f"{what}: {why}" for what, why in coupling.frozen[:3])
            notes.append(f"not pruned: everything is frozen ({reasons})")
            return None
        return coupling

    def _priced(self, coupling: Coupling, int8: File) -> Priced:
        batches = list(
            loader(
                self.run.workload.splits.calibration,
                IMPORTANCE_BATCH,
                model=self.run.model,
                seed=self.run.settings.seed,
                limit=IMPORTANCE_SAMPLES,
            )
        )
        ranked = importance(
            self.run.model,
            coupling,
            method=self.run.settings.importance,
            batches=batches,
            loss=self.run.workload.task.loss,
        )
        settings, example = self.run.settings, self.run.workload.example(2)
        sizes = resolutions(self.run.model, example, settings.resolutions)
        possible = actions(coupling, ranked, grid=settings.channel_grid, resolutions=sizes)

        def make(folder: Path) -> None:
            priced = price(self.run, self.original, int8, possible, coupling)
            write_json(folder / "priced.json", priced.to_dict())

        key = {
            "actions": [[action.text, list(action.kept)] for action in possible],
            "target": self.run.settings.target,
            "int8": int8.sha256,
            **self.run.speed.key,
            "size": self.run.budget.max_size_bytes,
        }
        folder = self.run.stage("price", key, make)
        return Priced.from_dict(json.loads((folder / "priced.json").read_text()), _by_text(possible))


def _reserve_s(run: Run) -> float:
    return min(max(to_come_s(run), RESERVE_SHARE * run.budget.time_s), MOST_RESERVED * run.budget.time_s)


def _like(file: File, baseline: Sequence[File]) -> File:
    """The unpruned file of the same precision: what disturbs one disturbs the other alike."""
    alike = [each for each in baseline if ("plan" in each.details) == ("plan" in file.details)]
    return alike[0] if alike else baseline[0]


def _said(rung: Mapping[str, Any]) -> str:
    """A rung of the quantization ladder in words."""
    drop = "no file" if rung["drop"] is None else f"drop {rung['drop']:.2f} points"
    kept = "kept" if rung["kept"] else "undone"
    note = f" ({rung['note']})" if rung["note"] else ""
    return f"{rung['name']}: {drop}, {kept}, {rung['seconds']:.0f} s{note}"


def _by_text(possible: Sequence[Action]) -> dict[str, Action]:
    return {action.text: action for action in possible}
