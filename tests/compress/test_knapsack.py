"""The knapsack against every plan there is."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.compress.choice import Choice
from edgekit.compress.knapsack import knapsack


def choice(subject, index, damage, gain):
    return Choice(action=index, subject=subject, text=f"{subject} {index}", damage=damage, gain_ms=gain, gain_bytes=0)


@st.composite
def problems(draw):
    """Blocks with groups inside, groups alone; gains in whole steps of the wanted gain, so that nothing is rounded."""
    blocks = draw(st.integers(0, 2))
    groups = [f"g{i}" for i in range(draw(st.integers(1, 4)))]
    inner = {group: f"block {draw(st.integers(0, blocks - 1))}" for group in groups if blocks and draw(st.booleans())}
    wanted = draw(st.sampled_from([1, 2, 4, 5, 8, 10]))
    made = []
    for subject in [f"block {i}" for i in range(blocks)] + groups:
        for index in range(1 if subject.startswith("block") else draw(st.integers(1, 2))):
            damage = draw(st.integers(-2, 9)) / 8
            made.append(choice(subject, index, damage, draw(st.integers(-1, 6)) / wanted))
    return made, inner


def every_plan(choices, within):
    by_subject = {}
    for each in choices:
        by_subject.setdefault(each.subject, [None]).append(each)
    for plan in itertools.product(*by_subject.values()):
        taken = [each for each in plan if each is not None]
        subjects = {each.subject for each in taken}
        if not any(within.get(subject) in subjects for subject in subjects):
            yield taken


@given(problems())
def test_no_plan_that_gains_as_much_does_less_damage(problem):
    choices, within = problem
    useful = [each for each in choices if each.gain_ms > 0]
    enough = [p for p in every_plan(useful, within) if sum(c.gain_ms for c in p) >= 1 - 1e-9]
    found = knapsack(choices, gain_ms=1.0, within=within)
    if not enough:
        assert found == ()
        return
    assert {each.text for each in found} in [{each.text for each in plan} for plan in enough]
    assert sum(c.damage for c in found) <= min(sum(c.damage for c in p) for p in enough) + 1e-9


def test_a_hundred_layers_take_milliseconds():
    choices = [
        choice(f"layer {layer}", width, 0.01 * (width + 1) ** 2 * (1 + layer % 7), 0.004 * (width + 1))
        for layer in range(100)
        for width in range(8)
    ]
    found = knapsack(choices, gain_ms=1.0, within={})
    assert len({each.subject for each in found}) == len(found)
    assert sum(each.gain_ms for each in found) == pytest.approx(1.0, abs=0.3)
