"""What to do after a run: the commands that its report ends with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from edgekit.compress.budget import Budget
from edgekit.compress.stages import File
from edgekit.report import Verdict
from edgekit.search import Member
from edgekit.units import format_latency

SURER = (0.9, 0.99)
"""Confidences to decide with where the test split did not agree: the first that is above the run's."""


def next_commands(
    root: Path, bundle: Path, files: Sequence[File], *, verdict: Verdict, front: Sequence[Member], budget: Budget
) -> list[str]:
    """Look at the bundle, time it, time the files; where the budget is missed, what may hold it comes first.

    Args:
        root: folder of the run.
        bundle: that it left.
        files: that it measured on the test split.
        verdict: of that measurement.
        front: the files that no other one beats, the fastest first, as `edgekit bundle --point` counts them.
        budget: that was asked for.
    """
    quoted = shlex.quote(str(bundle))
    missed = [] if verdict.holds else _where_missed(root, verdict, front, budget)
    return [
        *missed,
        f"edgekit inspect {quoted}",
        f"python -m edgekit.device bench {quoted}",
        f"edgekit bench {' '.join(shlex.quote(str(file.path)) for file in files)}",
    ]


def _where_missed(root: Path, verdict: Verdict, front: Sequence[Member], budget: Budget) -> list[str]:
    ways = [f"the same command with a longer --time or a larger --max-drop; {root} is gone on from"]
    chosen = next((each for each in front if each.point.name == verdict.chosen), None)
    limit = budget.max_drop
    if chosen is None or limit is None or not chosen.point.drop.value <= limit < chosen.test["drop"]["value"]:
        return ways
    # The two splits disagree, as they will now and then: there may be a file that both like.
    surer = next((each for each in SURER if each > budget.confidence), None)
    if surer is not None:
        ways.append(
            f"the same command with --confidence {surer:g}: the selection split, on which this file lost "
            f"{chosen.point.drop.value:.2f}, has to be surer then"
        )
    milder = (
        (number, each)
        for number, each in enumerate(front, 1)
        if each.point.latency_ms > chosen.point.latency_ms and each.point.drop.value < chosen.point.drop.value
    )
    number, other = next(milder, (0, chosen))
    if not other.test:  # What was scored (the chosen one, the unpruned int8 file) is in the table.
        ways.append(
            f"edgekit bundle --run {shlex.quote(str(root))} --point {number}  # {other.point.name}: "
            f"{format_latency(other.point.latency_ms)}, lost {other.point.drop.value:.2f} on selection, not scored "
            "on test"
        )
    return ways
