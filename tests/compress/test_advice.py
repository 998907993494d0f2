"""What a run says to do next: where test breaks what selection allowed, other files than the chosen one may hold."""

from pathlib import Path

import pytest

from edgekit.compress import Budget
from edgekit.compress.advice import next_commands
from edgekit.report import Verdict
from edgekit.search import Member, Point
from edgekit.stats import Estimate

ROOT, BUNDLE = Path("runs/my net"), Path("runs/my net/net.edgekit")


def member(name, ms, drop, on_test=None):
    point = Point(
        name=name,
        latency_ms=ms,
        drop=Estimate(value=drop, low=drop - 0.5, high=drop + 0.5, n=100),
        size_bytes=round(1e3 * ms),
    )
    test = {} if on_test is None else {"drop": {"value": on_test}}
    return Member(point=point, file="", source="", sha256="", precision="int8", target="any", choices={}, test=test)


def said(*front, chosen, holds=False, **limits):
    verdict = Verdict(holds=holds, chosen=chosen, broken=() if holds else ("something",), text="")
    commands = next_commands(ROOT, BUNDLE, [], verdict=verdict, front=front, budget=Budget(max_drop=0.5, **limits))
    assert commands[-3] == "edgekit inspect 'runs/my net/net.edgekit'"
    return commands[:-3]


BOLD, MILD = member("bold", 0.2, 0.28, 0.62), member("mild", 0.3, 0.24)
INT8, FP32 = member("int8", 0.5, 0.1, 0.0), member("fp32", 1.0, 0.0, 0.0)


def test_a_budget_that_holds_needs_no_advice():
    assert said(BOLD, MILD, INT8, FP32, chosen="bold", holds=True) == []


def test_where_the_splits_disagree_more_caution_and_the_next_milder_file_are_named():
    again, surer, other = said(BOLD, MILD, INT8, FP32, chosen="bold")
    assert again.startswith("the same command with a longer --time or a larger --max-drop; runs/my net ")
    assert surer.startswith("the same command with --confidence 0.9: ")
    assert "lost 0.28," in surer
    assert other == (
        "edgekit bundle --run 'runs/my net' --point 2  # mild: 300.0 µs, lost 0.24 on selection, not scored on test"
    )


@pytest.mark.parametrize(("confidence", "expected"), [(0.9, "--confidence 0.99:"), (0.99, None)])
def test_the_confidence_is_above_that_of_the_run(confidence, expected):
    ways = said(BOLD, INT8, chosen="bold", confidence=confidence)
    assert [expected in way for way in ways[1:]] == ([True] if expected else [])


@pytest.mark.parametrize(
    ("front", "chosen"),
    [
        ((member("bold", 0.2, 0.7, 0.9), MILD, INT8), "bold"),  # Both splits say no.
        ((member("bold", 0.2, 0.3, 0.4), MILD, INT8), "bold"),  # The drop holds: the latency, say, does not.
        ((MILD, INT8), "bold"),  # Another file is better in all.
    ],
)
def test_otherwise_more_time_or_a_wider_limit_is_all(front, chosen):
    (way,) = said(*front, chosen=chosen)
    assert "--time" in way


def test_a_milder_file_that_was_scored_is_in_the_table():
    assert len(said(BOLD, INT8, MILD, chosen="bold")) == 2
