"""How long planning takes for a deep network: from prices of single decisions to a ladder of plans and their graphs.

    python tools/planning_time.py --depth 104

A residual network of that depth with new weights stands for a trained one: planning looks at its structure, and the
prices (damage and gain of each decision) are made up here. In a real run these are measured, one loss and one latency
each, and so is the damage of decisions taken together: that is measuring, and `edgekit compress` counts it as such.
Prints one line a step; planning is the sum of the last two.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from reference.networks.resnet import ResNet

from edgekit.compress.choice import Choice
from edgekit.compress.ladder import ladder
from edgekit.export import export
from edgekit.prune import Action, GraphPruner, actions, analyse, combine, importance, inside
from edgekit.quantize import sketch
from edgekit.workload import Batch

BASELINE_MS, BASELINE_BYTES = 1.0, 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=104, help="layers: 6 n + 2 (default 104)")
    parser.add_argument("--target", default="x86-vnni")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    network = ResNet([(options.depth - 2) // 6] * 3).eval()
    example = Batch((torch.randn(2, 3, 32, 32),), {}, None)
    with _timed("coupling"):
        coupling = analyse(network, example)
    with _timed("importance of channels (l1)"):
        ranked = importance(network, coupling, method="l1")
    with _timed("possible decisions", say=lambda: f"{len(possible)} of them"):
        possible = actions(coupling, ranked, grid=16)
    with tempfile.TemporaryDirectory() as folder, _timed("export"):
        source = ir.load(export(network, example, Path(folder) / "model.onnx", dynamic="batch").path)
        ir.external_data.load_to_model(source)
    priced = _prices(possible)
    with _timed("decide: a ladder of plans", say=lambda: f"{len(rungs)} rungs"):
        rungs = ladder(
            priced,
            baseline_ms=BASELINE_MS,
            baseline_bytes=BASELINE_BYTES,
            within=inside(coupling),
            joint_damage=lambda taken: sum(choice.damage for choice in taken),
        )
    with _timed("their int8 graphs"):
        graphs = GraphPruner(source)
        for rung in rungs:
            plan = combine(coupling, [choice.action for choice in rung.choices])
            sketch(graphs.pruned(plan), options.target)
    return 0


def _prices(possible: Sequence[Action]) -> list[Choice[Action]]:
    generator = np.random.default_rng(0)
    share = BASELINE_MS / len(possible)
    return [
        Choice(
            action=action,
            subject=action.subject,
            text=action.text,
            damage=float(generator.gamma(1.0, 0.05)),
            gain_ms=share * float(generator.uniform(0.2, 1.5)),
            gain_bytes=1000,
        )
        for action in possible
    ]


@contextmanager
def _timed(what: str, say: Callable[[], str] = lambda: "") -> Iterator[None]:
    begin = time.perf_counter()
    yield
    print(f"{what:<32} {time.perf_counter() - begin:6.2f} s  {say()}".rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
