from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest

from edgekit.device import Latency, measure
from edgekit.device.rounds import Here, LostError, interleave
from edgekit.errors import EdgekitError
from edgekit.progress import Step


class Clock:
    """Time that passes only when a call takes it."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def work(self, *durations_ns):
        taken = itertools.cycle(durations_ns)

        def call():
            self.now += next(taken)

        return call


def test_times_are_those_of_the_clock():
    clock = Clock()
    result = measure({"a": clock.work(500_000), "b": clock.work(1_000_000)}, time_s=1, clock=clock)
    assert set(result["a"].samples_ms) == {0.5}
    assert set(result["b"].rounds_ms) == {1.0}
    assert result["a"].p50.value == 0.5
    ratio = result["a"].ratio_to(result["b"])
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("call_ns", "per_loop"), [(1_000, 2000), (500_000, 4), (3_000_000, 1), (10, 10_000)])
def test_a_loop_lasts_two_milliseconds(call_ns, per_loop):
    clock = Clock()
    result = measure({"a": clock.work(call_ns)}, time_s=0.001, min_rounds=3, warmup_s=0.01, clock=clock)["a"]
    assert len(result.samples_ms) == per_loop * len(result.rounds_ms)


def test_each_round_runs_each_candidate_once_in_a_seeded_order():
    def order(seed):
        clock, seen = Clock(), []

        def call(name):
            def run():
                seen.append(name)
                clock.now += 5_000_000

            return run

        result = measure(
            {name: call(name) for name in "abc"}, time_s=1e-9, min_rounds=20, width=0, seed=seed, clock=clock
        )
        assert all(len(latency.rounds_ms) == 20 for latency in result.values())
        return seen[-60:]

    orders = order(0)
    rounds = [tuple(orders[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len(set(rounds)) > 3
    assert order(0) == orders
    assert order(1) != orders


def test_stops_on_time():
    clock = Clock()
    result = measure({"a": clock.work(4_000_000, 6_000_000)}, time_s=1, min_rounds=1, width=0, clock=clock)
    assert len(result["a"].rounds_ms) == pytest.approx(200, abs=1)


def test_min_rounds_go_before_time():
    clock = Clock()
    assert len(measure({"a": clock.work(10**9)}, time_s=1, min_rounds=7, clock=clock)["a"].rounds_ms) == 7


def test_stops_early_once_intervals_are_narrow_and_p99_can_be_told():
    clock = Clock()
    result = measure({"a": clock.work(10**6), "b": clock.work(10**6)}, time_s=10**6, clock=clock)
    assert 299 <= len(result["a"].samples_ms) < 1000
    assert result["a"].p99.value == 1.0


def test_the_loops_first_call_is_not_counted():
    clock = Clock()
    calls_per_round = 5
    # Five calls of 0.5 ms in a loop (one not counted): the slow one is always the first.
    times = [500_000] * 1000
    count = itertools.count()

    def call():
        clock.now += times[0] if next(count) < 1000 else 500_000

    result = measure({"a": call}, time_s=0.01, min_rounds=2, warmup_s=0.01, clock=clock)["a"]
    assert len(result.samples_ms) == (calls_per_round - 1) * len(result.rounds_ms)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_meanwhile_and_as_before_afterwards(enabled):
    clock, states = Clock(), []

    def call():
        states.append(gc.isenabled())
        clock.now += 10**7

    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        measure({"a": call}, time_s=0.001, min_rounds=5, warmup_s=0.001, clock=clock)
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()
    assert not any(states[-5:])


def test_a_call_that_raises_gives_its_own_exception_and_garbage_collection_back():
    with pytest.raises(ZeroDivisionError):
        measure({"a": lambda: 1 / 0})
    assert gc.isenabled()


def test_progress_ends_at_the_total():
    clock, steps = Clock(), []
    measure({"a": clock.work(10**7)}, time_s=0.05, min_rounds=2, clock=clock, progress=steps.append)
    assert steps[-1] == Step("measuring latency", 100, 100)
    assert [step.done for step in steps] == sorted(step.done for step in steps)


@pytest.mark.parametrize(
    ("calls", "options", "text"),
    [
        ({}, {}, "no candidates"),
        ({"a": int}, {"time_s": 0}, "got 0\n  where: measure(time_s)"),
        ({"a": int}, {"min_rounds": -1}, "got -1\n  where: measure(min_rounds)"),
    ],
)
def test_refuses_what_cannot_be_measured(calls, options, text):
    with pytest.raises(EdgekitError) as caught:
        measure(calls, **options)
    assert text in str(caught.value)


def latency(values):
    values = np.asarray(values, float)
    return Latency(samples_ms=values, rounds_ms=values)


def test_percentiles_need_samples():
    assert latency(np.arange(28.0)).p90 is None
    assert shuffled(101).p90.value == 90
    assert latency(np.arange(298.0)).p99 is None
    assert shuffled(1001).p99.value == 990


def shuffled(n):
    return latency(np.random.default_rng(0).permutation(np.arange(float(n))))


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.9, "faster"), (1.1, "slower"), (1.0, "no measurable difference"), (0.995, "no measurable difference")],
)
def test_verdict(factor, verdict):
    base = np.random.default_rng(0).uniform(1, 2, 200)
    assert latency(base * factor).verdict(latency(base)) == verdict


def test_verdict_of_noise_is_no_difference():
    random = np.random.default_rng(0)
    a, b = latency(random.lognormal(0, 0.5, 100)), latency(random.lognormal(0, 0.5, 100))
    assert a.verdict(b) == b.verdict(a) == "no measurable difference"


def test_ratio_needs_common_rounds():
    with pytest.raises(EdgekitError, match="3 rounds against 4"):
        latency([1, 1, 1]).ratio_to(latency([1, 1, 1, 1]))


def test_drift():
    assert latency([1, 1, 2, 2]).drift == 1.0
    assert latency([1, 1, 2, 2]).drifted
    assert latency([1.0] * 9).drift == 0.0
    assert not latency([1.0]).drifted


def test_dict_round_trip():
    one = latency(np.linspace(1, 2, 40))
    data = one.to_dict(raw=True)
    assert np.array_equal(Latency.from_dict(data).samples_ms, one.samples_ms)
    assert data["p50_ms"]["value"] == pytest.approx(1.5)
    assert data["p99_ms"] is None
    assert "samples_ms" not in one.to_dict()


def test_a_drift_that_both_share_leaves_the_ratio_alone():
    rng = np.random.default_rng(1)
    drift = np.linspace(1, 3, 80)
    slow, fast = latency(2.0 * drift * rng.normal(1, 0.01, 80)), latency(drift * rng.normal(1, 0.01, 80))
    ratio = fast.ratio_to(slow)
    assert ratio.low <= 2.0 <= ratio.high
    assert ratio.high - ratio.low < 0.02
    (said,) = [text for text in fast.remarks() if "slower" in text]
    assert said.startswith(f"became {fast.drift:.0%} slower")


def test_a_quiet_machine_calls_for_no_remark():
    assert latency(np.random.default_rng(2).normal(1, 0.01, 100)).remarks() == ()


def test_an_unstable_machine_and_processes_that_differ_are_said_to_be_so():
    rng = np.random.default_rng(3)
    unstable = latency(rng.choice([1.0, 1.4], 100))
    assert any(text.startswith("unstable: ") for text in unstable.remarks())
    rounds = np.concatenate([np.full(30, 1.0), np.full(30, 1.04), np.full(30, 1.01)])
    apart = Latency(samples_ms=rounds, rounds_ms=rounds, runs=(30, 30, 30))
    assert any("3 processes differ by 4.0%" in text for text in apart.remarks())


def test_processes_that_disagree_give_no_verdict():
    """Each process alone would be sure; together they say that the file is not what makes the difference."""
    rng = np.random.default_rng(4)
    base = rng.normal(1, 0.002, 90)
    factors = np.repeat([1.03, 0.99, 1.02], 30)
    runs = (30, 30, 30)
    first = Latency(samples_ms=base, rounds_ms=base, runs=runs)
    other = Latency(samples_ms=base * factors, rounds_ms=base * factors, runs=runs)
    assert other.verdict(first) == "no measurable difference"
    assert latency(base[:30] * 1.03).verdict(latency(base[:30])) == "slower"
    slower = Latency(samples_ms=base * 1.03, rounds_ms=base * 1.03, runs=runs)
    assert slower.verdict(first) == "slower"
    with pytest.raises(EdgekitError, match="rounds against"):
        latency(base).ratio_to(first)


def test_warm_up_goes_on_while_calls_get_faster():
    clock, count = Clock(), itertools.count()

    def call():
        clock.now += max(1_000_000, 20_000_000 - 100_000 * next(count))

    measure({"a": call}, time_s=0.001, min_rounds=2, warmup_s=0.2, clock=clock)
    # 190 calls until it is at its fastest, of which 0.2 s would have held eleven.
    assert next(count) > 190


def test_one_that_is_lost_drops_out_and_the_others_go_on():
    clock = Clock()

    class Dies(Here):
        def loop(self, count):
            if clock.now > 200_000_000:
                raise LostError("gone", where="b")
            return super().loop(count)

    timers = {name: kind(clock.work(5_000_000), clock) for name, kind in (("a", Here), ("b", Dies), ("c", Here))}
    found = interleave(
        timers,
        time_s=0.5,
        min_rounds=20,
        warmup_s=0.01,
        order=np.random.default_rng(0),
        clock=clock,
    )
    assert (sorted(found.times), list(found.lost)) == (["a", "c"], ["b"])
    assert len(found.times["a"]) == len(found.times["c"]) >= 20
