"""Learned rounding: each weight goes up or down as the output of its block asks for, not to the nearest integer.

M. Nagel et al., *Up or Down? Adaptive Rounding for Post-Training Quantization*, 2020, block by block as in Y. Li et
al., *BRECQ*, 2021, with activations that are rounded at random as in X. Wei et al., *QDrop*, 2022.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from edgekit.progress import Progress, Step, silent
from edgekit.quantize.calibration import first_samples
from edgekit.quantize.graph import constant, initializer
from edgekit.quantize.learning.blocks import Block, blocks_of
from edgekit.quantize.learning.network import Call, Network
from edgekit.quantize.learning.simulation import Simulation
from edgekit.quantize.plan import QuantPlan
from edgekit.quantize.planning import prepared
from edgekit.spec import Feeds
from edgekit.store import write_atomic

SAMPLES = 512
RATE = 1e-2
STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1
"""The sigmoid is stretched so that it reaches 0 and 1 (AdaRound, section 4.1)."""
SHARPNESS = (20.0, 2.0)
WARM_UP = 0.2
PULL = 0.2
"""How much the pull towards 0 and 1 counts against the error of the block, which is 1 for rounding to the nearest."""
DROP = 0.5

Values = dict[str, Tensor]


def learn_rounding(
    model: Path,
    plan: QuantPlan,
    calibration: Iterable[Feeds],
    path: Path,
    *,
    steps: int = 400,
    time_s: float = float("inf"),
    seed: int = 0,
    progress: Progress = silent,
) -> QuantPlan:
    """Write an fp32 file whose weights round to the learned integers, and give the plan for it.

    Args:
        model: the fp32 file that `plan` was made for.
        plan: a static plan.
        calibration: batches of inputs; the first 512 samples are learned from.
        path: the fp32 file to write: rewritten, equalized, its weights exact multiples of their scales. A block where
            learning does not beat rounding to the nearest keeps that.
        steps: of Adam for each block. The papers take 20,000 on a GPU; most of the gain is in the first hundreds.
        time_s: seconds; blocks that are not reached in time are rounded to the nearest.
        seed: of the order of batches and of what is dropped.
        progress: told after each block.

    Returns:
        `plan` with the scales of all weights named, without equalization (the file has it) and without bias shifts
        (other weights need others).

    Raises:
        QuantizeError: an operator has no counterpart in torch.
        StoreError: the file cannot be written.
    """
    source = prepared(model, plan)
    plan = replace(plan, bias_shift={})
    exact, learner = Network(source.graph), Learner(source.graph, plan)
    batches = [
        {name: torch.from_numpy(array) for name, array in feeds.items()}
        for feeds in first_samples(calibration, SAMPLES)
    ]
    wanted: list[Values] = [dict(feeds) for feeds in batches]
    given: list[Values] = [{name: learner.made(name, x) for name, x in feeds.items()} for feeds in batches]
    blocks = blocks_of(exact, learner.axes)
    random, end = torch.Generator().manual_seed(seed), time.monotonic() + time_s
    for index, block in enumerate(blocks):
        targets = [_output(exact, block, values) for values in wanted]
        if time.monotonic() < end:
            learner.learn(block, given, wanted, targets, steps=steps, random=random, end=end)
        given = [{block.output: _output(learner, block, values)} for values in given]
        wanted = [{block.output: target} for target in targets]
        progress(Step("learning to round", index + 1, len(blocks)))
    scales = {}
    for call in exact.calls:
        if call.name in learner.axes:
            _set_weight(source.graph, call, learner.final(call))
            scales[call.name] = tuple(learner.held(f"weight {call.name}").double().tolist())
    write_atomic(path, ir.to_proto(source).SerializeToString())
    return replace(plan, weight_scales=scales, equalized={})


class Learner(Simulation):
    """A simulation in which the weights of one block at a time round softly."""

    def __init__(self, graph: ir.Graph, plan: QuantPlan) -> None:
        super().__init__(graph, plan)
        self.soft: Values = {}
        self.hard: Values = {}
        self.drop: torch.Generator | None = None

    def integers(self, call: Call, weight: Tensor) -> Tensor:
        """Between two integers while it is learned, one of them afterwards."""
        if call.name in self.hard:
            return self.hard[call.name]
        if call.name not in self.soft:
            return super().integers(call, weight)
        below = torch.floor(weight / self.weight_scales(call, weight))
        return torch.clamp(below + _stretched(self.soft[call.name]), -self.weight_limit, self.weight_limit)

    def quantized(self, name: str, value: Tensor) -> Tensor:
        """While it learns, half of an activation's numbers stay as they are."""
        done = super().quantized(name, value)
        if self.drop is None:
            return done
        return torch.where(torch.rand(value.shape, generator=self.drop) < DROP, value, done)

    def final(self, call: Call) -> Tensor:
        """The weight that a call ends with: integers times scales."""
        name = call.inputs[1]
        assert name is not None
        with torch.no_grad():
            return self.quantized_weight(call, self.constant(name))

    def learn(
        self,
        block: Block,
        given: Sequence[Values],
        wanted: Sequence[Values],
        targets: Sequence[Tensor],
        *,
        steps: int,
        random: torch.Generator,
        end: float,
    ) -> None:
        """Learn the weights of a block: its output on rounded inputs shall be the fp32 one."""
        calls = [call for call in block.calls if call.name in self.axes]
        before = self._error(block, given, targets)
        if before == 0.0:
            return
        self.soft = {call.name: self._start(call) for call in calls}
        self.drop = random
        adam = torch.optim.Adam(self.soft.values(), lr=RATE)
        for step in range(steps):
            if time.monotonic() > end:
                break
            index = int(torch.randint(len(given), (), generator=random))
            mixed = {name: self._mixed(x, wanted[index].get(name), random) for name, x in given[index].items()}
            output = self.run(block.calls, mixed)[block.output]
            loss = (output - targets[index]).square().mean() / before + PULL * self._indecision(step / steps)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        self.drop = None
        # What each one has decided for, or is nearest to.
        for call in calls:
            self.soft[call.name] = torch.where(self.soft[call.name] > 0, 1e3, -1e3)
        with torch.no_grad():
            self.hard |= {
                call.name: self.without_overflow(call, self.integers(call, self._plain(call))) for call in calls
            }
        self.soft = {}
        if self._error(block, given, targets) >= before:
            for call in calls:
                del self.hard[call.name]

    @staticmethod
    def _mixed(rounded: Tensor, exact: Tensor | None, random: torch.Generator) -> Tensor:
        if exact is None:
            return rounded
        return torch.where(torch.rand(rounded.shape, generator=random) < DROP, exact, rounded)

    def _plain(self, call: Call) -> Tensor:
        name = call.inputs[1]
        assert name is not None
        return self.constant(name)

    def _start(self, call: Call) -> Tensor:
        """What makes the soft integer the weight itself."""
        exact = self._plain(call) / self.weight_scales(call, self._plain(call))
        share = (exact - torch.floor(exact)).clamp(0.01, 0.99)
        inner = (share - STRETCH_LOW) / (STRETCH_HIGH - STRETCH_LOW)
        return torch.logit(inner).requires_grad_()

    def _indecision(self, progress: float) -> Tensor:
        """How far the weights are from 0 and 1, 0 to 1; the closer to the end, the sharper."""
        if progress < WARM_UP:
            return torch.zeros(())
        first, last = SHARPNESS
        power = last + (first - last) * (1 - (progress - WARM_UP) / (1 - WARM_UP))
        parts = [1 - (2 * _stretched(v) - 1).abs().pow(power) for v in self.soft.values()]
        return torch.cat([part.flatten() for part in parts]).mean()

    def _error(self, block: Block, given: Sequence[Values], targets: Sequence[Tensor]) -> float:
        errors = [
            float((_output(self, block, values) - target).square().mean())
            for values, target in zip(given, targets, strict=True)
        ]
        return sum(errors) / len(errors)


def _stretched(v: Tensor) -> Tensor:
    return torch.clamp(torch.sigmoid(v) * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW, 0, 1)


def _output(network: Network, block: Block, values: Values) -> Tensor:
    with torch.no_grad():
        return network.run(block.calls, values)[block.output]


def _set_weight(graph: ir.Graph, call: Call, weight: Tensor) -> None:
    node = next(node for node in graph if node.name == call.name)
    before = constant(node.inputs[1])
    assert before is not None
    node.replace_input_with(1, initializer(graph, f"{call.name}.rounded", weight.numpy().astype(before.dtype)))
