"""Queries that come when they like, on a clock that only work and waiting move."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.device.scenarios import Scenario, load_remark, poisson_arrivals, serve
from edgekit.errors import EdgekitError

SERVICE_NS = 1_000_000


class Machine:
    """A clock, a sleep that is exact, and a call that always takes as long."""

    def __init__(self, service_ns=SERVICE_NS):
        self.now, self.service_ns = 0, service_ns

    def clock(self):
        self.now += 1_000  # Looking at it takes time too, so that waiting with open eyes ends.
        return self.now

    def sleep(self, seconds):
        self.now += round(seconds * 1e9)

    def call(self):
        self.now += self.service_ns

    def serve(self, arrivals):
        return serve(self.call, arrivals, clock=self.clock, sleep=self.sleep)


def waited(arrivals, service):
    """Lindley's recursion: what each query waits for those before it."""
    times = [0.0]
    for gap in np.diff(arrivals):
        times.append(max(0.0, times[-1] + service - gap))
    return np.array(times)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waiting_is_that_of_the_formula(load):
    """M/D/1: the mean wait is load / (2 (1 - load)) services (Pollaczek and Khinchine)."""
    arrivals = poisson_arrivals(load * 1e9 / SERVICE_NS, 100, seed=1)
    waits = waited(arrivals, SERVICE_NS)
    assert np.mean(waits) / SERVICE_NS == pytest.approx(load / (2 * (1 - load)), rel=0.1)
    found = Machine().serve(arrivals[:4000])
    # Three looks at the clock for each query, which add up while the queue is not empty.
    assert np.abs(found.latency_ns - waits[:4000] - SERVICE_NS).max() < 0.3 * SERVICE_NS
    assert np.mean(found.latency_ns) == pytest.approx(np.mean(waits[:4000]) + SERVICE_NS, rel=0.05)
    assert found.service_ns.mean() == pytest.approx(SERVICE_NS, rel=0.01)


def test_gaps_between_queries_are_exponential():
    arrivals = poisson_arrivals(500, 100, seed=2)
    gaps = np.diff(arrivals) / 1e9
    assert len(arrivals) == pytest.approx(50_000, rel=0.02)
    assert gaps.mean() == pytest.approx(1 / 500, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)
    assert np.mean(gaps > 1 / 500) == pytest.approx(np.exp(-1), abs=0.01)
    assert np.array_equal(arrivals, poisson_arrivals(500, 100, seed=2))
    assert arrivals[-1] < 100e9


def test_a_rate_that_cannot_be_served_is_said_to_be_so_and_ends():
    arrivals = poisson_arrivals(4e9 / SERVICE_NS, 1, seed=3)
    served = Machine().serve(arrivals)
    # Four times as much as it can, and twice the time for it.
    assert len(served.latency_ns) == pytest.approx(2 * arrivals[-1] / SERVICE_NS, rel=0.01)
    assert np.all(np.diff(served.latency_ns[100:].reshape(-1)[::200]) > 0)
    # A service is 1.001 ms, since looking at the clock takes time.
    text = load_remark(4e9 / SERVICE_NS, served)
    assert "4000 queries a second are more than it can serve, which is 999:" in text
    assert f"{len(arrivals) - len(served.latency_ns)} of {len(arrivals)} queries were not begun" in text


def test_a_rate_near_the_limit_is_said_to_be_near_it():
    served = Machine().serve(poisson_arrivals(950, 2, seed=4))
    assert load_remark(950, served).startswith("95% of what it can serve (999 a second)")
    assert load_remark(300, served) == ""


@pytest.mark.parametrize(
    ("scenario", "batch", "runs"),
    [
        (Scenario(), 4, 1),
        (Scenario(samples=8), 4, 2),
        (Scenario(kind="multi-stream"), 1, 8),
        (Scenario(kind="offline"), 16, 64),
        (Scenario(kind="server", rate=10), 2, 1),
    ],
)
def test_runs_of_a_query(scenario, batch, runs):
    assert scenario.runs(batch) == runs
    assert Scenario(**scenario.to_dict()) == scenario


def test_what_is_no_scenario_is_refused():
    with pytest.raises(EdgekitError, match="no rate"):
        Scenario(kind="server")
    with pytest.raises(EdgekitError, match="a rate for offline"):
        Scenario(kind="offline", rate=3)
    with pytest.raises(EdgekitError, match="got -1 samples"):
        Scenario(samples=-1)
    with pytest.raises(EdgekitError, match="queries of 8 samples in runs of 3") as caught:
        Scenario(kind="multi-stream").runs(3)
    assert "--query 9" in str(caught.value)
