from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.compress import Budget, Settings
from edgekit.compress import ladder as steps
from edgekit.compress.candidates import Candidate, choose
from edgekit.compress.choice import Choice
from edgekit.compress.ladder import ladder
from edgekit.compress.stages import File
from edgekit.errors import EdgekitError
from edgekit.spec import IOSpec
from edgekit.stats import Estimate
from edgekit.validate.behaviour import Figures, Gates


def exact(value, error=0.0):
    return Estimate(value=value, low=value - 1.96 * error, high=value + 1.96 * error, n=100)


def added_up(taken):
    return sum(choice.damage for choice in taken)


@pytest.fixture
def candidate(tmp_path):
    def make(stage, drop, latency_ms, *, error=0.1, size=1000, number=1, changes=None):
        path = Path(tmp_path / f"{stage}.onnx")
        path.write_bytes(b"x" * size)
        file = File(
            stage=stage,
            path=path,
            spec=IOSpec(inputs=(), outputs=()),
            parameters=1,
            macs=1,
            sha256="",
            details={},
        )
        changes = changes or Figures()
        return Candidate(file=file, round=number, drop=exact(drop, error), latency_ms=latency_ms, changes=changes)

    return make


def test_the_fastest_that_holds_with_a_margin_wins(candidate):
    fp32 = candidate("fp32", 0.0, 1.0, error=0.0, number=0)
    files = [fp32, candidate("int8", 0.0, 0.5), candidate("mild", 0.2, 0.4), candidate("touching", 0.49, 0.3)]
    assert choose(files, Budget(max_drop=0.5)).file.stage == "mild"


def test_without_a_margin_is_better_than_not_at_all(candidate):
    fp32 = candidate("fp32", 0.0, 1.0, error=0.0, number=0)
    touching = candidate("touching", 0.49, 0.3)
    slow = Budget(max_drop=0.5, max_latency_ms=0.35)
    assert choose([fp32, touching], slow).file.stage == "touching"


def test_the_closest_is_kept_where_none_holds(candidate):
    fp32 = candidate("fp32", 0.0, 1.0, error=0.0, number=0)
    near, far = candidate("near", 0.6, 0.3), candidate("far", 3.0, 0.1)
    assert choose([fp32, near, far], Budget(max_drop=0.5, max_latency_ms=0.35)).file.stage == "near"


def test_a_gate_is_held_on_the_selection_split_with_the_same_margin(candidate):
    def changed(churn, error=0.2):
        return Figures(churn=exact(churn, error), worst_class_drop=exact(1.0), ece_rise=exact(0.0))

    fp32 = candidate("fp32", 0.0, 1.0, error=0.0, number=0, changes=Figures.unchanged())
    files = [
        fp32,
        candidate("calm", 0.1, 0.5, changes=changed(1.0)),
        candidate("touching", 0.1, 0.4, changes=changed(1.95)),
        candidate("restless", 0.1, 0.3, changes=changed(9.0)),
    ]
    assert choose(files, Budget(max_drop=0.5)).file.stage == "restless"
    assert choose(files, Budget(max_drop=0.5, gates=Gates(max_churn=2))).file.stage == "calm"
    hurried = Budget(max_drop=0.5, max_latency_ms=0.45, gates=Gates(max_churn=2))
    assert choose(files, hurried).file.stage == "touching"
    assert choose(files, Budget(max_drop=0.5, gates=Gates(max_worst_class_drop=0.5))).file.stage == "fp32"
    # What is measured at the end only decides nothing.
    assert choose(files, Budget(max_drop=0.5, gates=Gates(max_robustness_drop=0))).file.stage == "restless"


def test_where_no_file_holds_a_gate_the_closest_is_kept(candidate):
    fp32 = candidate("fp32", 0.0, 1.0, error=0.0, number=0, changes=Figures.unchanged())
    near, far = (
        candidate(name, 0.0, ms, changes=Figures(churn=exact(churn)))
        for name, ms, churn in (("a", 0.4, 3), ("b", 0.3, 9))
    )
    assert choose([fp32, near, far], Budget(max_latency_ms=0.45, gates=Gates(max_churn=2))).file.stage == "a"


def test_a_budget_says_its_limits_and_gates():
    budget = Budget(max_drop=0.5, gates=Gates(max_churn=2, max_robustness_drop=1))
    assert budget.to_dict() == {
        "max_drop_points": 0.5,
        "max_latency_ms": None,
        "max_size_bytes": None,
        "max_churn": 2,
        "max_worst_class_drop": None,
        "max_ece_rise": None,
        "max_robustness_drop": 1,
        "time_s": 900.0,
        "confidence": 0.7,
    }


def test_int8_that_is_slower_does_not_ship_unless_size_asks_for_it(candidate):
    fp32 = candidate("fp32", 0.0, 1.0, error=0.0, size=4000, number=0)
    slower = candidate("int8", 0.0, 1.2, size=1000)
    assert choose([fp32, slower], Budget()).file.stage == "fp32"
    assert choose([fp32, slower], Budget(max_size_bytes=2000)).file.stage == "int8"


def test_the_ladder_takes_what_costs_least_per_gain_first_and_adds_up():
    choices = [
        Choice(action=name, subject=name, text=name, damage=damage, gain_ms=gain, gain_bytes=1)
        for name, damage, gain in (("dear", 1.0, 0.2), ("cheap", 0.1, 0.2), ("useless", 0.0, -0.01))
    ]
    rungs = ladder(choices, baseline_ms=1.0, baseline_bytes=100, within={}, joint_damage=added_up)
    assert [[choice.subject for choice in rung.choices] for rung in rungs] == [["cheap"], ["cheap", "dear"]]
    assert [rung.predicted_ratio for rung in rungs] == pytest.approx([1 / 0.8, 1 / 0.6])
    assert [rung.predicted_ms for rung in rungs] == pytest.approx([0.8, 0.6])


def test_one_choice_a_subject_and_none_inside_a_removed_block():
    choices = [
        Choice(action=1, subject="g", text="g: 64 -> 32", damage=0.1, gain_ms=0.2, gain_bytes=1),
        Choice(action=2, subject="g", text="g: 64 -> 16", damage=0.3, gain_ms=0.4, gain_bytes=1),
        Choice(action=3, subject="block b", text="remove b", damage=0.9, gain_ms=0.5, gain_bytes=1),
    ]
    rungs = ladder(choices, baseline_ms=1.0, baseline_bytes=100, within={"g": "block b"}, joint_damage=added_up)
    assert [[choice.text for choice in rung.choices] for rung in rungs] == [
        ["g: 64 -> 32"],
        ["g: 64 -> 16"],
        ["remove b"],
    ]
    assert rungs[-1].predicted_ms == pytest.approx(0.5)


def test_a_size_that_is_asked_for_comes_first():
    choices = [
        Choice(action=name, subject=name, text=name, damage=damage, gain_ms=gain_ms, gain_bytes=gain_bytes)
        for name, damage, gain_ms, gain_bytes in (
            ("fast", 0.1, 0.3, 1),
            ("small", 0.1, 0.01, 20),
            ("both", 0.3, 0.2, 20),
        )
    ]
    common = {"baseline_ms": 1.0, "baseline_bytes": 100, "within": {}, "joint_damage": added_up}

    def texts(**options):
        return [[choice.text for choice in rung.choices] for rung in ladder(choices, **common, **options)]

    assert texts() == [["fast"], ["fast", "both"]]
    assert texts(max_bytes=100) == texts()
    # A rung that does nothing but keep to the size is worth a recovery, however little faster it is.
    # What got it there in the beginning may go again, once it is small enough without.
    assert texts(max_bytes=85) == [["small"], ["small", "fast"], ["both", "fast"]]
    assert texts(max_bytes=65) == [["small", "both"], ["small", "both", "fast"]]
    assert all(rung.predicted_bytes <= 65 for rung in ladder(choices, **common, max_bytes=65))


def test_damage_is_measured_together_and_not_added_up():
    choices = [
        Choice(action=name, subject=name, text=name, damage=damage, gain_ms=0.2, gain_bytes=1)
        for name, damage in (("first", 0.1), ("twin", 0.11), ("other", 0.2))
    ]

    def joint(taken):
        # With its twin gone, the second of the two is worth ten times as much.
        names = {choice.subject for choice in taken}
        return added_up(taken) + (1.0 if {"first", "twin"} <= names else 0.0)

    rungs = ladder(choices, baseline_ms=1.0, baseline_bytes=100, within={}, joint_damage=joint)
    assert [[choice.subject for choice in rung.choices] for rung in rungs[:2]] == [["first"], ["first", "other"]]
    assert [rung.damage for rung in rungs] == pytest.approx([0.1, 0.3, 1.41])


def test_what_a_choice_was_seen_to_add_spares_measuring_it_again(monkeypatch):
    """Every choice adds more, the more is gone: the ladder takes what trying all of them at each step would take."""
    monkeypatch.setattr(steps, "TRIED_TOGETHER", 30)
    monkeypatch.setattr(steps, "CLEARLY", 0.0)
    rng = np.random.default_rng(0)
    weights, gains, calls = rng.uniform(0.5, 2.0, 30), rng.uniform(0.01, 0.03, 30), []

    def joint(taken):
        calls.append(len(taken))
        return float(sum(weights[choice.action] for choice in taken) ** 1.2)

    choices = [
        Choice(action=n, subject=str(n), text=str(n), damage=weights[n] ** 1.2, gain_ms=gain, gain_bytes=1)
        for n, gain in enumerate(gains)
    ]
    rungs = ladder(choices, baseline_ms=1.0, baseline_bytes=100, within={}, joint_damage=joint)
    tried, taken, order, every = len(calls), (), [], 0
    while len(taken) < len(choices):
        rest = [choice for choice in choices if choice not in taken]
        dearness = [(joint((*taken, choice)) - joint(taken)) / choice.gain_ms for choice in rest]
        taken = (*taken, rest[int(np.argmin(dearness))])
        order.append(set(taken))
        every += len(rest)
    assert len(rungs) > 3
    assert all(set(rung.choices) in order for rung in rungs)
    assert tried < every / 4


def test_gains_that_do_not_add_up_make_a_longer_ladder_with_true_speeds():
    choices = [
        Choice(action=n, subject=str(n), text=str(n), damage=0.1 + 0.01 * n, gain_ms=0.05, gain_bytes=1)
        for n in range(20)
    ]

    def truly(taken):
        # Whatever goes, a quarter of the latency stays, and gains shrink on the way there.
        return 0.25 + 0.75 * (1 - len(taken) / 20) ** 1.3

    common = {"baseline_ms": 1.0, "baseline_bytes": 100, "within": {}, "joint_damage": added_up}
    summed = ladder(choices, **common)
    measured = ladder(choices, **common, joint_ms=truly)
    # Summed, 16 of 20 would be five times as fast, and the ladder ends there.
    assert len(summed[-1].choices) == 15
    assert summed[-1].predicted_ratio > 1.2 / truly(summed[-1].choices)
    assert len(measured[-1].choices) > 17
    for rung in measured:
        assert rung.predicted_ms == pytest.approx(truly(rung.choices), rel=0.06)


def test_a_plan_that_is_measured_as_no_faster_does_not_end_the_ladder():
    choices = [
        Choice(action=n, subject=str(n), text=str(n), damage=0.1 + 0.01 * n, gain_ms=0.1, gain_bytes=1)
        for n in range(6)
    ]
    rungs = ladder(
        choices,
        baseline_ms=1.0,
        baseline_bytes=100,
        within={},
        joint_damage=added_up,
        joint_ms=lambda taken: 1.01 if len(taken) < 4 else 0.5,
    )
    assert max(rung.predicted_ratio for rung in rungs) > 1.5


def test_budget_names_what_is_broken():
    broken = Budget(max_drop=0.5, max_latency_ms=1.0, max_size_bytes=1000).broken(
        drop=0.6, latency_ms=2.0, size_bytes=2000
    )
    assert broken == ("drop 0.60 points > 0.50 points", "latency 2.00 ms > 1.00 ms", "size 2.0 kB > 1.0 kB")
    assert Budget(max_drop=None).broken(drop=99.0, latency_ms=1.0, size_bytes=1) == ()
    assert Budget(max_drop=0.5).broken(drop=float("nan"), latency_ms=1.0, size_bytes=1)


def test_caution_is_half_a_standard_error_or_as_many_as_the_confidence_asks_for():
    assert Budget().cautious(exact(0.3, 0.1)) == pytest.approx(0.35, abs=0.003)
    for confidence in (0.5, 0.84134, 0.97725):
        errors = (Budget(confidence=confidence).cautious(exact(0.3, 0.1)) - 0.3) / 0.1
        assert errors == pytest.approx({0.5: 0, 0.84134: 1, 0.97725: 2}[confidence], abs=1e-3)


@pytest.mark.parametrize("confidence", [0.49, 1.0, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(EdgekitError, match="--confidence"):
        Budget(confidence=confidence)


def test_more_confidence_takes_a_slower_file(candidate):
    candidates = [candidate("fp32", 0.0, 3.0, error=0.0), candidate("int8", 0.1, 2.0), candidate("pruned", 0.35, 1.0)]
    candidates[-1] = replace(candidates[-1], drop=exact(0.35, 0.2))
    chosen = {c: choose(candidates, Budget(max_drop=0.5, confidence=c)).file.stage for c in (0.5, 0.7, 0.9, 0.99995)}
    # 0.35 is 0.75 standard errors below the limit, 0.1 is 4 below it.
    assert chosen == {0.5: "pruned", 0.7: "pruned", 0.9: "int8", 0.99995: "int8"}


@pytest.mark.parametrize(
    "limits",
    [
        {"max_drop": -1.0},
        {"max_latency_ms": 0.0},
        {"max_latency_ms": float("inf")},
        {"max_size_bytes": -5},
        {"time_s": 0.0},
    ],
)
def test_limits_must_be_positive(limits):
    with pytest.raises(EdgekitError, match=str(next(iter(limits.values())))) as caught:
        Budget(**limits)
    assert caught.value.where.startswith("--")


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"target": "z80"}, "--device"),
        ({"importance": "luck"}, "--importance"),
        ({"providers": ("tpu",)}, "--provider"),
        ({"also": ("arm64", "riscv64")}, "--also"),
        ({"threads": 0}, "--threads"),
        ({"grid": 0}, "--grid"),
        ({"max_rounds": -1}, "--rounds, --epochs"),
    ],
)
def test_settings_name_the_wrong_option(changed, where):
    with pytest.raises(EdgekitError) as caught:
        Settings(**changed)
    assert caught.value.where == where


def test_the_grid_is_the_devices():
    assert [Settings(target=target).channel_grid for target in ("x86-vnni", "x86-avx2", "arm64")] == [16, 8, 8]
    assert Settings(grid=4).channel_grid == 4


def test_where_the_greedy_way_is_clearly_worse_the_knapsack_has_the_rung():
    # The best rate comes first, and what is left to choose from then costs more than the one right choice.
    choices = [
        Choice(action=name, subject=subject, text=name, damage=damage, gain_ms=gain, gain_bytes=1)
        for name, subject, damage, gain in (("a", "a", 0.1, 0.11), ("b", "b", 0.5, 0.2), ("c", "c", 0.3, 0.3))
    ]
    first, *_ = ladder(choices, baseline_ms=1.0, baseline_bytes=100, within={"a": "c", "b": "c"}, joint_damage=added_up)
    assert [choice.text for choice in first.choices] == ["c"]


def test_a_wide_step_of_the_greedy_way_is_filled_with_what_lies_between():
    choices = [
        Choice(action=name, subject=name, text=name, damage=damage, gain_ms=gain, gain_bytes=1)
        for name, damage, gain in (("a", 0.1, 0.2), ("b", 0.5, 0.4))
    ]
    rungs = ladder(choices, baseline_ms=1.0, baseline_bytes=100, within={}, joint_damage=added_up)
    assert [[choice.text for choice in rung.choices] for rung in rungs] == [["a"], ["b"], ["a", "b"]]
    assert [rung.predicted_ratio for rung in rungs] == pytest.approx([1 / 0.8, 1 / 0.6, 1 / 0.4])

    # So is one among plans that have to be small, if what lies between is small enough, too.
    small = {"baseline_ms": 1.0, "within": {}, "joint_damage": added_up, "baseline_bytes": 100}
    assert [len(rung.choices) for rung in ladder(choices, **small, max_bytes=99)] == [1, 1, 2]
    assert [len(rung.choices) for rung in ladder(choices, **small, max_bytes=98)] == [2]

    # Measured together, the two do less damage than the second alone: then that one has no point.
    joint = {frozenset("a"): 0.1, frozenset("b"): 0.5, frozenset("ab"): 0.4}
    rungs = ladder(
        choices,
        baseline_ms=1.0,
        baseline_bytes=100,
        within={},
        joint_damage=lambda taken: joint[frozenset(choice.text for choice in taken)],
    )
    assert [[choice.text for choice in rung.choices] for rung in rungs] == [["a"], ["a", "b"]]
