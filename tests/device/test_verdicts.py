"""Verdicts on machines that are made up: correlated noise, drift, and processes with a speed of their own."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.device import Latency

PROCESSES, ROUNDS, REPETITIONS = 3, 40, 60


def machine(rng, *factors):
    """Latencies of candidates (how much work each has) on a shared machine, in interleaved rounds.

    A drift and bursts of other work that all candidates of a round share; noise of each that lasts for some rounds;
    0.3 % of difference between processes with the same file.
    """
    level = np.cumsum(0.02 * rng.standard_normal(PROCESSES * ROUNDS)) + 0.5 * (rng.random(PROCESSES * ROUNDS) < 0.1)
    found = []
    for factor in factors:
        own = 0.01 * rng.standard_normal(PROCESSES * ROUNDS)
        for index in range(1, len(own)):
            own[index] += 0.5 * own[index - 1]
        layout = np.repeat(0.003 * rng.standard_normal(PROCESSES), ROUNDS)
        rounds = factor * np.exp(level + own + layout)
        found.append(Latency(samples_ms=rounds, rounds_ms=rounds, runs=(ROUNDS,) * PROCESSES))
    return found


def verdicts(factor, seed):
    rng = np.random.default_rng(seed)
    pairs = [machine(rng, 1.0, factor) for _ in range(REPETITIONS)]
    return [candidate.verdict(baseline) for baseline, candidate in pairs]


def test_the_same_file_is_no_different():
    assert verdicts(1.0, 0).count("no measurable difference") >= 0.95 * REPETITIONS


@pytest.mark.parametrize(("factor", "verdict"), [(1.03, "slower"), (0.97, "faster")])
def test_three_percent_are_seen(factor, verdict):
    assert verdicts(factor, 1).count(verdict) >= 0.90 * REPETITIONS
