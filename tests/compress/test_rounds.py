"""Where the search goes next, decision by decision."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edgekit.compress import Budget, Settings, job
from edgekit.compress.chances import UNSURE, chance, screened_drops
from edgekit.compress.ladder import Rung
from edgekit.compress.measuring import to_come_s
from edgekit.compress.recovery import Recovered
from edgekit.compress.rounds import Next, Outcome, Round, _start, first_rung, last_step, next_step, rounds
from edgekit.compress.screening import MOST_SCREENED, Screened, left_after, next_to_screen
from edgekit.prune import PrunePlan
from edgekit.stats import Estimate
from edgekit.validate import SelectionJudge
from edgekit.validate.behaviour import Figures

BUDGET = Budget(max_drop=0.5)
LEFT = 0.25


def estimate(drop):
    return Estimate(value=drop, low=drop, high=drop, n=100)


def weights(name):
    plan = PrunePlan(fingerprint="", narrowings=(), slices={}, blocks=())
    return Recovered(plan=plan, folder=Path(name))


def screened(*drops):
    return [
        Screened(rung=rung, drop=estimate(drop), recovered=weights(f"screened-{rung}"), left=LEFT)
        for rung, drop in enumerate(drops)
    ]


def tried(*rounds):
    """Rounds as (rung, drop)."""
    return [
        Round(
            number=number,
            rung=rung,
            predicted_ratio=1.2,
            recovered=weights(f"round-{number}"),
            outcome=Outcome(stage="", drop=estimate(drop), latency_ms=1.0, size_bytes=1),
            holds=drop <= 0.5,
        )
        for number, (rung, drop) in enumerate(rounds, 1)
    ]


def ladder(*ms):
    return [Rung(choices=(), damage=0.0, predicted_ratio=1 / each, predicted_ms=each, predicted_bytes=1) for each in ms]


RUNGS = ladder(0.8, 0.7, 0.6, 0.5)


def test_a_long_recovery_is_expected_to_leave_its_share_of_the_drop():
    one, gain = screened(2.0, -1.0)
    assert one.expected.value == pytest.approx(2.0 * LEFT)
    # A gain is not expected to grow or to shrink.
    assert gain.expected.value == pytest.approx(-1.0)


def test_more_training_leaves_less():
    assert [left_after(9.0, seconds) for seconds in (0.0, 27.0, 72.0)] == pytest.approx([1.0, 1 / 2, 1 / 3])
    assert left_after(9.0, -5.0) == 1.0  # No time is left.


def test_where_to_aim_keeps_the_margin_of_the_decision():
    """A standard error of 0.4 points: half of it on top of the expected 0.25 and 0.35."""
    wide = [
        replace(each, drop=Estimate(value=drop, low=drop - 0.784, high=drop + 0.784, n=100))
        for each, drop in zip(screened(0.0, 0.0), (1.0, 1.4), strict=True)
    ]
    assert [each.expected.value for each in wide] == pytest.approx([0.25, 0.35])
    assert [each.should_hold(BUDGET) for each in wide] == [True, False]


def test_the_rung_of_which_the_most_is_expected_is_aimed_at():
    """They save 0.2, 0.3, 0.4, 0.5 of the latency; what barely holds is missed every second time."""
    assert first_rung(RUNGS, screened(0.1, 0.5, 0.49 / LEFT, 0.51 / LEFT), BUDGET) == 1
    assert first_rung(RUNGS, screened(0.1, 0.5, 0.3 / LEFT, 0.51 / LEFT), BUDGET) == 2
    assert first_rung(RUNGS, screened(0.1, 0.5, 0.3 / LEFT, 0.4 / LEFT), BUDGET) == 3
    assert first_rung(RUNGS, screened(9.0, 20.0), BUDGET) == 0
    # With its whole time the ResNet-56 of below is expected to lose 0.24 of what it lost in the short recoveries.
    steep = [replace(each, left=0.24, drop=replace(WIDE, value=each.drop.value)) for each in SCREENED]
    steep = [replace(s, drop=replace(s.drop, low=s.drop.value - 0.72, high=s.drop.value + 0.72)) for s in steep]
    assert first_rung(STEEP, steep, Budget(max_drop=1.5)) == 5
    # One that was not screened may lie between; beyond the boldest one nothing is known.
    assert first_rung(STEEP, steep[:1], Budget(max_drop=1.5)) == 4
    assert first_rung(RUNGS, [], BUDGET) == 0


def test_no_slower_rung_than_the_latency_asks_for():
    fast = Budget(max_drop=0.5, max_latency_ms=0.65)
    assert first_rung(RUNGS, screened(0.1, 9.0), fast) == 2
    assert first_rung(RUNGS, screened(0.1, 0.1, 0.1, 0.1), fast) == 3
    assert first_rung(RUNGS, screened(0.1), Budget(max_drop=0.5, max_latency_ms=0.1)) == 3


@pytest.mark.parametrize(
    ("rounds", "following"),
    [
        ([(1, 0.2)], Next(rung=2)),
        ([(3, 0.2)], None),
        ([(1, 0.7)], Next(rung=1, again=True)),
        ([(1, 0.8)], Next(rung=0)),
        ([(1, 9.0)], Next(rung=0)),
        ([(0, 9.0)], None),
        ([(1, 0.7), (1, 0.6)], Next(rung=0)),
        ([(1, 0.7), (1, 0.4)], Next(rung=2)),
        ([(1, 0.2), (2, 9.0)], None),
        ([(0, 1.0)], Next(rung=0, again=True)),
        ([(1, 0.2), (2, 1.0)], Next(rung=2, again=True)),
        ([(1, 0.2), (2, 1.0), (2, 0.9)], None),
        ([(2, 9.0), (1, 0.2)], None),
        ([(0, 0.2), (3, 9.0)], Next(rung=1)),
        ([(0, 0.2), (3, 9.0), (1, 0.2)], Next(rung=2)),
        ([(0, 0.2), (3, 0.7)], Next(rung=3, again=True)),
    ],
    ids=str,
)
def test_bolder_after_a_success_again_after_a_near_miss_milder_after_a_far_one(rounds, following):
    assert next_step(tried(*rounds), len(RUNGS), BUDGET) == following


@pytest.mark.parametrize(
    ("drops", "left", "rung"),
    [
        ((1.0, 2.0, 4.0, 8.0), 0.2, 2),  # A tenth of 4.0 is too much; it is tried anyway.
        ((1.0, 2.0, 4.0, 8.0), 0.1, 2),  # A twentieth of 8.0 is too much, of 4.0 it is not.
        ((1.0, 2.0, 4.0, 8.0), 0.08, 3),
        ((1.0, 2.0, None, 8.0), 0.1, 2),  # 4.0 lies between.
        ((1.0, 2.0, None, 9.5), 0.08, 2),  # Of 9.5 it would be 0.38, and 0.35 is the most.
        ((1.0, 2.0, 4.0), 0.0, 2),  # Nothing is known of the last rung.
        ((1.0, None, 4.0, 8.0), 0.1, 2),
        ((1.0, None, 4.0, 8.0), 0.08, 3),  # 2.0 lies between.
        ((None, None, 4.0, 8.0), 0.0, 2),  # Nothing is known of what was recovered.
        ((), 0.0, 2),
    ],
    ids=str,
)
def test_a_recovery_that_left_little_lets_rungs_be_skipped(drops, left, rung):
    known = [each for each, drop in zip(screened(*[d or 0.0 for d in drops]), drops, strict=True) if drop]
    assert next_step(tried((1, left)), len(RUNGS), BUDGET, known) == Next(rung=rung)
    assert next_step(tried((1, left / 2)), len(RUNGS), BUDGET, known, more=2.0) == Next(rung=rung)


def test_without_a_limit_on_the_drop_everything_is_tried():
    unlimited = Budget(max_drop=None)
    last = Round(
        number=1,
        rung=0,
        predicted_ratio=1.2,
        recovered=weights("round-1"),
        outcome=Outcome(stage="", drop=estimate(50.0), latency_ms=1.0, size_bytes=1),
        holds=True,
    )
    assert next_step([last], 4, unlimited) == Next(rung=1)


@pytest.mark.parametrize(
    ("drops", "left_s", "rung"),
    [
        ((0.1, 0.4, 9.0), 50.0, 1),  # The boldest that holds as it is.
        ((0.6, 0.9, 9.0), 50.0, None),  # A long recovery might have helped; there is no time for one.
        ((0.1, 0.4, 9.0), 40.0, None),  # Nor is there any to make files of it.
    ],
)
def test_without_time_for_a_round_a_screened_network_that_holds_is_taken(drops, left_s, rung):
    asked = []

    def judge(number, model, _):
        asked.append((number, model))
        return Outcome(stage="pruned-1", drop=estimate(0.4), latency_ms=1.0, size_bytes=1)

    found = [
        replace(each, recovered=SimpleNamespace(plan=each.recovered.plan, model=lambda _, rung=each.rung: nets[rung]))
        for each in screened(*drops)
    ]
    nets = [torch.nn.Linear(2, 2) for _ in found]
    budget = Budget(max_drop=0.5, time_s=300.0)
    limits = SelectionJudge(workload=None, max_drop=0.5, margin=budget.margin)
    run = SimpleNamespace(budget=budget, settings=Settings(), left_s=left_s, judge=limits)
    done = rounds(run, RUNGS[:3], found, None, judge, taught=None, reserve_s=90.0)
    assert [each.rung for each in done] == ([] if rung is None else [rung])
    assert asked == ([] if rung is None else [(1, nets[rung])])
    assert all(each.holds and each.predicted_ratio == RUNGS[rung].predicted_ratio for each in done)


def test_a_round_starts_from_the_boldest_weights_that_fit_its_rung():
    known, plan = screened(0.1, 0.2, 0.3), weights("").plan
    assert _start(1, plan, [], known).folder.name == "screened-1"
    assert _start(1, plan, tried((1, 1.0)), known).folder.name == "round-1"
    assert _start(2, plan, tried((1, 0.2)), known).folder.name == "screened-2"
    assert _start(0, plan, tried((1, 9.0)), known).folder.name == "screened-0"
    assert _start(3, plan, tried((2, 0.2)), known[:1]).folder.name == "round-1"
    assert _start(0, plan, [], []) is None


def test_a_round_does_not_start_from_a_plan_that_took_what_it_keeps():
    narrow = replace(weights("").plan, slices={"a.weight": {0: (1, 2)}})
    found = [replace(screened(0.1)[0], recovered=Recovered(plan=narrow, folder=Path("narrow")))]
    assert _start(1, replace(narrow, slices={"a.weight": {0: (1, 2, 3)}}), [], found).folder.name == "narrow"
    assert _start(1, replace(narrow, slices={"a.weight": {0: (1, 3)}}), [], found) is None


@pytest.mark.parametrize("boldest", range(-1, 10))
def test_screening_closes_in_on_the_boldest_rung_that_should_hold(boldest):
    found = []
    while (rung := next_to_screen(found, 10, BUDGET)) is not None:
        found += [replace(screened(0.1 if rung <= boldest else 9.0)[0], rung=rung)]
    assert len(found) <= MOST_SCREENED
    assert max((each.rung for each in found if each.should_hold(BUDGET)), default=-1) == boldest


def test_a_machine_that_has_become_slow_does_not_make_a_candidate_slow(monkeypatch):
    """The unpruned files stand in every measurement; a candidate is as fast as it is beside the one like it."""
    runs = iter([
        {"fp32": 2.0, "int8": 1.0},
        {"fp32": 2.0, "int8": 1.0},
        # Slow for fp32 by half, for int8 by twice as much: one and the same machine, a little later.
        {"fp32": 3.0, "int8": 2.0, "pruned-1": 1.5},
        {"fp32": 3.0, "int8": 2.0, "pruned-1-int8": 1.6},
    ])  # fmt: skip
    monkeypatch.setattr(job, "selection_latency", lambda *_: next(runs))
    monkeypatch.setattr(job, "selection_score", lambda *_: None)
    monkeypatch.setattr(job, "compare", lambda *_: SimpleNamespace(drop=estimate(0.0)))
    files = {
        name: SimpleNamespace(stage=name, details={"plan": {}} if "int8" in name else {})
        for name in ("fp32", "int8", "pruned-1", "pruned-1-int8")
    }
    one = object.__new__(job._Job)
    judge = SimpleNamespace(changes=lambda *_: Figures())
    one.run = SimpleNamespace(workload=SimpleNamespace(task=None), budget=BUDGET, judge=judge)
    one.reference, one.plain_ms = None, {}
    one.original = files["fp32"]
    plain = [files["fp32"], files["int8"]]
    found = [one._candidate(file, plain).latency_ms for file in files.values()]
    assert found == pytest.approx([2.0, 1.0, 1.0, 0.8])


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ([{"fp32": 2.0, "int8": 1.0, "pruned-1-int8": 0.5}], 0.5),
        # A slow session of the file that it stands beside would make it seem three times as fast.
        ([{"fp32": 2.0, "int8": 3.0, "pruned-1-int8": 0.6}, {"fp32": 3.0, "int8": 1.5, "pruned-1-int8": 0.6}], 0.4),
        ([{"fp32": 2.0, "int8": slow, "pruned-1-int8": 0.6} for slow in (3.0, 2.0, 4.0)], 0.3),
    ],
    ids=["none", "one", "all of three"],
)
def test_a_slow_session_is_measured_again(monkeypatch, later, expected):
    found = iter([{"fp32": 2.0, "int8": 1.0}, *later])
    asked = []

    def latency(_, files, attempt):
        asked.append((files[-1].stage, attempt))
        return next(found)

    monkeypatch.setattr(job, "selection_latency", latency)
    monkeypatch.setattr(job, "selection_score", lambda *_: None)
    monkeypatch.setattr(job, "compare", lambda *_: SimpleNamespace(drop=estimate(0.0)))
    fp32, int8, pruned = (
        SimpleNamespace(stage=name, details={"plan": {}} if "int8" in name else {})
        for name in ("fp32", "int8", "pruned-1-int8")
    )
    one = object.__new__(job._Job)
    judge = SimpleNamespace(changes=lambda *_: Figures())
    one.run = SimpleNamespace(workload=SimpleNamespace(task=None), budget=BUDGET, judge=judge)
    one.reference, one.plain_ms, one.original = None, {}, fp32
    one._candidate(fp32, [fp32, int8])
    assert one._candidate(pruned, [fp32, int8]).latency_ms == pytest.approx(expected)
    assert asked == [("int8", 1), *(("pruned-1-int8", number) for number in range(1, len(later) + 1))]


@pytest.mark.parametrize(
    ("time_s", "measuring_s"), [(75.0, 3.75 + 2.25 + 2.25), (300.0, 15 + 9 + 9), (3000.0, 20 + 20 + 90)]
)
def test_what_is_to_come_is_known_from_the_unpruned_files(time_s, measuring_s):
    """Judging: an export, a quantization, two scores, two latencies; then all four files are scored on test."""
    took = {"export-fp32": 3.0, "quantize-int8": 0.5, "score-fp32": 2.0, "score-int8": 1.0, "latency-int8": 1.5}
    run = SimpleNamespace(seconds={**took, "price": 99.0}, settings=Settings(), budget=Budget(time_s=time_s))
    assert to_come_s(run) == pytest.approx((3 + 0.5 + 3 + 2 * 1.5) + 2 * 3 + measuring_s)
    # For each further kind of CPU: a quantization, and a score on either split.
    run.settings = Settings(target="x86-avx2", also=("x86-vnni", "x86-avx2", "arm64"))
    assert to_come_s(run) == pytest.approx((3 + 0.5 + 3 + 2 * 1.5) + 2 * (0.5 + 2 * 1) + 2 * 3 + measuring_s)


# The ladder of a ResNet-56 on CIFAR-10, the drops that its screening left, and a first recovery that missed 1.5 points.
STEEP = [
    replace(rung, damage=damage)
    for rung, damage in zip(
        ladder(*(1 / ratio for ratio in (1.15, 1.29, 1.56, 1.83, 2.07, 2.4, 2.83, 3.85, 4.33))),
        (0.01, 0.05, 0.18, 0.33, 0.5, 0.75, 1.29, 1.94, 2.44),
        strict=True,
    )
]
SCREENED = [replace(screened(drop)[0], rung=rung) for rung, drop in ((4, 2.66), (6, 4.94), (7, 4.98), (8, 6.16))]
WIDE = Estimate(value=1.9, low=1.18, high=2.62, n=5000)


def test_screened_drops_rise_with_the_damage_from_nothing():
    found = screened_drops(STEEP, SCREENED)
    assert found[[4, 6, 7, 8]] == pytest.approx([2.66, 4.94, 4.98, 6.16])
    assert found[3] == pytest.approx(2.66 * 0.33 / 0.5)
    assert found[5] == pytest.approx(2.66 + (4.94 - 2.66) * (0.75 - 0.5) / (1.29 - 0.5))
    assert screened_drops(STEEP, SCREENED[:1])[8] == pytest.approx(2.66)
    assert screened_drops([replace(STEEP[0], damage=-0.1)], [])[0] == 0.0


@pytest.mark.parametrize(("drop", "confidence"), [(1.0, 0.5), (1.3, 0.7), (1.6, 0.9), (-0.3, 0.7)])
def test_chances_are_those_of_draws(drop, confidence):
    limits = Budget(max_drop=1.5, confidence=confidence)
    error = (WIDE.high - WIDE.low) / 3.92
    draws = np.random.default_rng(0).normal(drop, np.hypot(error, UNSURE * max(drop, 0.0)), 200_000)
    found = [limits.allows(value) for value in draws + limits.margin * error]
    assert chance(drop, WIDE, limits) == pytest.approx(np.mean(found), abs=0.005)


def test_without_any_doubt_a_chance_is_yes_or_no():
    assert [chance(drop, estimate(0.0), Budget(max_drop=0.0)) for drop in (0.0, -1.0)] == [1.0, 1.0]


def missed(rung, drop, *, holds=False):
    return replace(tried((rung, 9.0))[0], outcome=replace(tried((rung, 9.0))[0].outcome, drop=drop), holds=holds)


def last(*done, screened=SCREENED, **limits):
    budget = Budget(**{"max_drop": 1.5, **limits})
    return last_step(Next(rung=7, again=True), done, STEEP, budget, screened, more=1.19, again=0.77)


def test_the_last_round_does_not_bet_all_on_what_was_missed():
    assert last(missed(7, WIDE)) == Next(rung=3)
    # A milder rung that was missed, too, is out; so are those that are too slow.
    assert last(missed(3, WIDE), missed(7, WIDE)) == Next(rung=2)
    assert last(missed(7, WIDE), max_latency_ms=1 / 2.0) == Next(rung=4)
    # One that will most likely hold is recovered again.
    assert last(missed(7, replace(WIDE, value=1.55, low=1.4, high=1.7))) == Next(rung=7, again=True)


@pytest.mark.parametrize(
    ("done", "more"),
    [
        ((missed(2, WIDE, holds=True), missed(7, WIDE)), {}),
        ((missed(7, WIDE),), {"max_drop": None}),
        ((missed(7, WIDE),), {"screened": []}),
        ((missed(7, estimate(0.3)),), {}),  # The drop holds, and a gate does not.
        ((missed(7, WIDE),), {"screened": [replace(screened(-0.2)[0], rung=7)]}),
    ],
    ids=["something holds", "no limit", "nothing screened", "not the drop", "a gain"],
)
def test_otherwise_the_last_round_is_as_any(done, more):
    assert last(*done, **more) == Next(rung=7, again=True)


@pytest.mark.parametrize(
    ("drops", "rungs", "shown"),
    [
        ({7: 1.9, 3: 0.9}, [7, 3], [7, 3]),
        ({7: 0.2, 8: 9.0}, [7, 8], [7, 8]),
        ({7: 1.9, 3: 9.0}, [7, 3], [7, 3, 1]),  # Neither held; what was recovered for a moment does.
    ],
)
def test_a_run_that_has_missed_ends_with_a_milder_rung(monkeypatch, drops, rungs, shown):
    budget = Budget(max_drop=1.5, time_s=600.0)
    limits = SelectionJudge(workload=None, max_drop=1.5, margin=budget.margin)
    run = SimpleNamespace(budget=budget, settings=Settings(), left_s=380.0, judge=limits)
    asked = []

    def recover(_, stage, plan, *__, deadline_s, **___):
        run.left_s -= deadline_s + 20.0
        return SimpleNamespace(plan=plan, model=lambda _: torch.nn.Linear(2, 2), folder=Path(stage))

    def judge(number, *_):
        drop = drops[asked[number - 1]] if number <= len(asked) else 0.4
        return Outcome(
            stage="", drop=replace(WIDE, value=drop, low=drop - 0.7, high=drop + 0.7), latency_ms=1.0, size_bytes=1
        )

    monkeypatch.setattr("edgekit.compress.rounds.recover", recover)
    monkeypatch.setattr("edgekit.compress.rounds.combine", lambda _, chosen: asked.extend(chosen) or weights("").plan)
    numbered = [replace(rung, choices=(SimpleNamespace(action=number),)) for number, rung in enumerate(STEEP)]
    monkeypatch.setattr("edgekit.compress.rounds.first_rung", lambda *_: 7)
    brief = SimpleNamespace(plan=weights("").plan, model=lambda _: torch.nn.Linear(2, 2), folder=Path("brief"))
    mild = replace(screened(0.4)[0], rung=1, recovered=brief)
    done = rounds(run, numbered, [mild, *SCREENED], None, judge, taught=None, reserve_s=110.0)
    assert (asked, [each.rung for each in done]) == (rungs, shown)
    assert [each.number for each in done] == list(range(1, len(done) + 1))
