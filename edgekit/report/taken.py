"""Which of the priced decisions the chosen file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def priced(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The priced decisions and the plans made of them; empty where nothing could be pruned."""
    found: Sequence[Mapping[str, Any]] = report.get("choices") or ()
    return found[0] if found else {}


def chosen_round(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The round of pruning that the chosen file came from; None for an unpruned one."""
    name = report["verdict"]["chosen"]
    number = next((each["round"] for each in report.get("candidates", ()) if each["file"] == name), 0)
    return next((each for each in report.get("rounds", ()) if each["round"] == number), None)


def chosen_decisions(report: Mapping[str, Any]) -> frozenset[str]:
    """The texts of the decisions that the chosen file holds."""
    found, rungs = chosen_round(report), priced(report).get("rungs", ())
    if found is None or not 0 <= found.get("rung", -1) < len(rungs):
        return frozenset()
    return frozenset(rungs[found["rung"]]["choices"])
