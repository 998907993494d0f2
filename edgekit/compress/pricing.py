"""What each pruning decision costs in accuracy and gives in latency, both measured, one decision at a time."""

from __future__ import annotations

import contextlib
import copy
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import onnx_ir as ir
import torch
from torch import nn

from edgekit.compress.choice import Choice
from edgekit.compress.drafts import file_bytes, float_graph, signature
from edgekit.compress.ladder import Rung, ladder
from edgekit.compress.run import Run
from edgekit.compress.stages import File
from edgekit.distill import with_batch_statistics
from edgekit.errors import EdgekitError
from edgekit.progress import Step
from edgekit.prune import Action, Coupling, GraphPruner, apply, combine, inside
from edgekit.quantize import sketch
from edgekit.training import in_layout
from edgekit.validate import first_feeds
from edgekit.workload import Batch, loader

DAMAGE_SAMPLES, FEWEST_SAMPLES = 512, 64
DAMAGE_BATCH = 128
DAMAGE_SHARE = 0.1
"""Share of the time budget for damages: large networks under short budgets are judged by fewer samples."""
TOGETHER = 1
"""Plans whose joint damage is measured for each single decision, or somewhat fewer."""
ORIGINAL = "original"
MEASURE_S_PER_FILE, LEAST_S_PER_FILE = 0.6, 0.1
SESSIONS = 5
"""Of the original, each measured for as long as any other file; their median counts."""
GLANCE_S_PER_FILE = 0.2
"""Enough to tell how far summed gains are from what they give together; rungs are measured once more in the end."""
MEASURE_SHARE = 0.06
"""Share of the time budget for the latencies of single decisions, and again for those of the rungs. What is known less
well costs little: a small Transformer under a budget of five minutes spent a third of it here, and had a minute left to
recover in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """All decisions with their prices, and the ladder that they make.

    `baseline_ms` is the latency of the unpruned int8 file in the same interleaved measurement; `skipped` names the
    decisions that were not priced, and why.
    """

    choices: tuple[Choice[Action], ...]
    rungs: tuple[Rung[Action], ...]
    baseline_ms: float
    skipped: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "baseline_ms": self.baseline_ms,
            "choices": [choice.to_dict() for choice in self.choices],
            "rungs": [rung.to_dict() for rung in self.rungs],
            "skipped": [{"text": text, "reason": reason} for text, reason in self.skipped],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], actions: Mapping[str, Action]) -> Self:
        """Read what `to_dict` wrote; `actions` are the same decisions again, by their text."""
        choices = {row["text"]: Choice(action=actions[row["text"]], **row) for row in data["choices"]}
        return cls(
            baseline_ms=data["baseline_ms"],
            choices=tuple(choices.values()),
            rungs=tuple(
                Rung(**{**row, "choices": tuple(choices[text] for text in row["choices"])}) for row in data["rungs"]
            ),
            skipped=tuple((row["text"], row["reason"]) for row in data["skipped"]),
        )


def price(run: Run, original: File, int8: File, actions: Sequence[Action], coupling: Coupling) -> Priced:
    """Apply each action alone: the loss after BN re-estimation, and the latency of its int8 graph.

    Actions that lead to the same operators on the same shapes cost the same in ONNX Runtime: in a residual network the
    blocks of a stage are alike. So one graph stands for all of them, in which all are taken, and each gains its share.
    One alone would often drown: a file that is measured for half a second on a shared machine is off by 1 to 2 %, which
    is as much as a ResNet-56 gains by a narrower layer. The original is measured several times, since what it is off by
    is in every gain. All graphs are timed in one interleaved measurement, and so are the rungs at the end, since
    gains do not quite add up.

    Args:
        run: of which this is a stage.
        original: the network's fp32 file.
        int8: its int8 file.
        actions: the decisions.
        coupling: of the network.
    """
    speeds = _Speeds(run, original, coupling)
    damages = _Damages(run, coupling, len(actions) * (1 + TOGETHER))
    alike: dict[str, list[Action]] = defaultdict(list)
    damage: dict[str, float] = {}
    skipped: list[tuple[str, str]] = []
    for index, action in enumerate(actions):
        run.progress(Step("pricing decisions", index, len(actions)))
        try:
            key = speeds.add([action])
            damage[action.text] = damages.of([action])
            alike[key].append(action)
        except EdgekitError as error:
            skipped.append((action.text, error.problem))
    run.progress(Step("pricing decisions", len(actions), len(actions)))
    within = inside(coupling)
    shares: dict[str, _Share] = {}
    for index, (key, group) in enumerate(alike.items()):
        run.progress(Step("taking alike decisions together", index, len(alike)))
        shares |= dict.fromkeys((action.text for action in group), speeds.share(key, group, within))
    run.progress(Step("taking alike decisions together", len(alike), len(alike)))
    wanted = dict.fromkeys(share.key for share in shares.values())
    # Those of single decisions that are alike are measured no more, and large networks fill the memory.
    speeds.graphs = {key: graph for key, graph in speeds.graphs.items() if key in {ORIGINAL, *wanted}}
    ms = speeds.measured(wanted)
    choices = [
        Choice(
            action=action,
            subject=action.subject,
            text=action.text,
            damage=damage[action.text],
            gain_ms=(ms[ORIGINAL] - ms[share.key]) / share.of,
            gain_bytes=(speeds.sizes[ORIGINAL] - speeds.sizes[share.key]) // share.of,
        )
        for action in actions
        if (share := shares.get(action.text)) is not None
    ]

    expected = TOGETHER * len(actions)
    tried = itertools.count()

    def joint_damage(taken: Sequence[Choice[Action]]) -> float:
        run.progress(Step("taking decisions together", min(next(tried), expected - 1), expected))
        return damages.of([choice.action for choice in taken])

    def joint_ms(taken: Sequence[Choice[Action]]) -> float:
        key = speeds.add([choice.action for choice in taken])
        found = speeds.measured([key], glance=True)
        return ms[ORIGINAL] * found[key] / found[ORIGINAL]

    rungs = ladder(
        choices,
        baseline_ms=ms[ORIGINAL],
        baseline_bytes=int8.path.stat().st_size,
        max_bytes=run.budget.max_size_bytes,
        within=within,
        joint_damage=joint_damage,
        joint_ms=joint_ms,
    )
    run.progress(Step("taking decisions together", expected, expected))
    return Priced(
        choices=tuple(choices),
        rungs=tuple(_measured_again(rungs, speeds)),
        baseline_ms=ms[ORIGINAL],
        skipped=tuple(skipped),
    )


def _measured_again(rungs: Sequence[Rung[Action]], speeds: _Speeds) -> list[Rung[Action]]:
    """The rungs with the latency of each one's graph instead of the sum of its choices' gains.

    One that is no faster than a milder one has no point.
    """
    keys = [speeds.add([choice.action for choice in rung.choices]) for rung in rungs]
    ms = speeds.measured(keys) if rungs else {}
    speeds.expect([[choice.action for choice in rung.choices] for rung in rungs])
    found: list[Rung[Action]] = []
    for rung, key in zip(rungs, keys, strict=True):
        if ms[key] < min((each.predicted_ms for each in found), default=ms[ORIGINAL]):
            found.append(replace(rung, predicted_ms=ms[key], predicted_ratio=ms[ORIGINAL] / ms[key]))
    return found


@dataclass(frozen=True, slots=True)
class _Share:
    """What one of several alike decisions gains: its part of the graph under `key`, in which `of` of them are taken."""

    key: str
    of: int


class _Speeds:
    """The int8 graphs of plans, one for all plans that cost the same."""

    def __init__(self, run: Run, original: File, coupling: Coupling) -> None:
        self.run, self.coupling = run, coupling
        source = ir.load(original.path)
        self.source = GraphPruner(source)
        self.feeds = first_feeds(run.workload.splits.selection, original.spec)
        self.graphs = {ORIGINAL: file_bytes(sketch(source, run.settings.target))}
        self.sizes = {ORIGINAL: len(self.graphs[ORIGINAL])}

    def share(self, key: str, alike: Sequence[Action], within: Mapping[str, str]) -> _Share:
        """What each of these decisions gains, by the graph in which all are taken, as far as they go together.

        Args:
            key: of the graph of any one of them.
            alike: the decisions.
            within: for a subject that lies inside another one, that other one.
        """
        subjects = {action.subject for action in alike}
        together = [action for action in alike if within.get(action.subject) not in subjects]
        if len(together) > 1:
            with contextlib.suppress(EdgekitError):
                return _Share(self.add(together), len(together))
        return _Share(key, 1)

    def add(self, actions: Sequence[Action]) -> str:
        """The key under which a plan's graph will be measured."""
        graph = self._float(actions)
        key = signature(graph)
        if key not in self.graphs:
            self.graphs[key] = file_bytes(sketch(graph, self.run.settings.target))
            self.sizes[key] = len(self.graphs[key])
        return key

    def expect(self, plans: Sequence[Sequence[Action]]) -> None:
        """Have the costs of the fp32 graphs of plans that may be built, too, where files are priced by costs."""
        if not self.run.speed.predicts:
            return
        floats = {str(index): file_bytes(self._float(actions)) for index, actions in enumerate(plans)}
        self.run.speed.on_device(floats, self.feeds)

    def measured(self, keys: Iterable[str], *, glance: bool = False) -> dict[str, float]:
        """Milliseconds of the original's graph and of these, in one interleaved run; a short one at a `glance`."""
        once = glance or self.run.speed.predicts  # A prediction is the same each time.
        again = [] if once else [f"{ORIGINAL} {session}" for session in range(2, SESSIONS + 1)]
        wanted = {key: self.graphs[key] for key in (ORIGINAL, *keys)} | dict.fromkeys(again, self.graphs[ORIGINAL])
        share_s = MEASURE_SHARE * self.run.budget.time_s / len(wanted)
        per_file_s = min(max(share_s, LEAST_S_PER_FILE), GLANCE_S_PER_FILE if glance else MEASURE_S_PER_FILE)
        found = self.run.speed.ms(wanted, self.feeds, time_s=per_file_s * len(wanted), tell=not glance)
        return found | {ORIGINAL: statistics.median(found[name] for name in (ORIGINAL, *again))}

    def _float(self, actions: Sequence[Action]) -> ir.Model:
        return float_graph(self.run.workload, self.source, combine(self.coupling, actions))


class _Damages:
    """The rise of the loss that plans cause without any recovery but that of the BatchNorm statistics.

    Images are laid out channels-last: on CPUs that takes half the time. There are as many samples as the budget has
    time for when `plans` plans are judged by them.
    """

    def __init__(self, run: Run, coupling: Coupling, plans: int) -> None:
        self.workload, self.model, self.coupling = run.workload, run.model, coupling
        self.batches = self._drawn(FEWEST_SAMPLES)
        unpruned = copy.deepcopy(self.model)
        self._loss(unpruned)  # The first time plans kernels.
        begin = time.perf_counter()
        self._loss(unpruned)
        sample_s = (time.perf_counter() - begin) / sum(map(len, self.batches))
        affordable = int(DAMAGE_SHARE * run.budget.time_s / max(plans * sample_s, 1e-9))
        # In whole batches: statistics of the few samples of a smaller last one would tell nothing.
        affordable -= affordable % DAMAGE_BATCH if affordable > DAMAGE_BATCH else 0
        self.batches = self._drawn(min(max(affordable, FEWEST_SAMPLES), DAMAGE_SAMPLES))
        self.reference = self._loss(unpruned)

    def _drawn(self, samples: int) -> list[Batch]:
        drawn = loader(self.workload.splits.calibration, DAMAGE_BATCH, model=self.model, limit=samples)
        return [batch.to(memory_format=torch.channels_last) for batch in drawn]

    def of(self, actions: Sequence[Action]) -> float:
        """Of a plan, against the original."""
        return self._loss(apply(self.model, combine(self.coupling, actions))) - self.reference

    @torch.no_grad()
    def _loss(self, model: nn.Module) -> float:
        """Of a network of its own: what it counts in its BatchNorm layers stays with it."""
        settled = in_layout(with_batch_statistics(model), channels_last=True)
        loss = self.workload.task.loss
        total = sum(float(loss(batch.call(settled), batch.target)) * len(batch) for batch in self.batches)
        return total / sum(map(len, self.batches))
