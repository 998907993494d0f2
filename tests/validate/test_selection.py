"""Files on the selection split against limits, by answers counted in PyTorch and standard errors by formula."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from edgekit.stats import Estimate
from edgekit.tasks import classification
from edgekit.validate import SelectionJudge
from edgekit.validate.behaviour import Figures, Gates
from edgekit.validate.selection import margin_of


def answers(path, data) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: data.tensors[0].numpy()})[0].argmax(1)


@pytest.fixture
def judged(data, exported, other):
    """The other network's file as a judge with these limits sees it, and the judge."""
    workload = SimpleNamespace(splits=SimpleNamespace(selection=data), task=classification())

    def of(**limits):
        judge = SelectionJudge(workload=workload, **limits)
        reference = judge.score(exported.path, exported.spec, target="any")
        return judge, judge.of_files(exported.spec, "any", reference)(other)

    return of


@pytest.fixture
def right(data, exported, other):
    """Of the original and of the other file: 1 where it is right, else 0."""
    return [(answers(path, data) == data.tensors[1].numpy()).astype(float) for path in (exported.path, other)]


def test_the_drop_is_counted_and_a_margin_adds_standard_errors(judged, right):
    difference = 100 * (right[0] - right[1])
    plain, cautious = judged()[1].drop, judged(margin=2.0)[1].drop
    assert plain == pytest.approx(difference.mean())
    # The interval is for pairs, with half a pair added to each cell: about as wide as this.
    standard_error = difference.std(ddof=1) / np.sqrt(len(difference))
    assert cautious - plain == pytest.approx(2 * standard_error, rel=0.15)


def test_a_limit_on_the_drop_is_held_up_to_it(judged, right):
    drop = float(100 * (right[0] - right[1]).mean())
    for limit, holds in ((None, True), (drop + 0.01, True), (drop - 0.01, False)):
        judge, found = judged(max_drop=limit)
        assert judge.holds(found) is holds


def test_a_gate_is_broken_by_as_much_as_answers_changed(judged, data, exported, other):
    churn = 100 * float((answers(exported.path, data) != answers(other, data)).mean())
    assert churn > 2.0
    judge, found = judged(gates=Gates(max_churn=churn / 2))
    assert found.excess == pytest.approx(1.0)
    assert not judge.holds(found)
    judge, found = judged(gates=Gates(max_churn=churn))
    assert judge.holds(found)


@pytest.mark.parametrize(
    ("drop", "churn", "error", "holds"),
    [(0.4, 1.9, 0.0, True), (0.4, 1.9, 0.3, False), (0.6, 1.9, 0.0, False), (0.4, 2.1, 0.0, False)],
)
def test_figures_that_are_known_are_held_up_to_drop_gates_and_margin(drop, churn, error, holds):
    """The margin adds half an error: 1.9 + 0.52 * 0.3 is above 2."""
    judge = SelectionJudge(
        workload=None, max_drop=0.5, gates=Gates(max_churn=2, max_robustness_drop=1), margin=margin_of(0.7)
    )
    known = [Estimate(value=v, low=v - 1.96 * e, high=v + 1.96 * e, n=100) for v, e in ((drop, 0.0), (churn, error))]
    assert judge.holds(judge.of(known[0], Figures(churn=known[1]))) is holds


def test_without_gates_nothing_is_compared_but_the_drop(judged, monkeypatch):
    monkeypatch.setattr("edgekit.validate.selection.figures_of", lambda *_, **__: pytest.fail("compared"))
    # Robustness is for the end.
    assert judged(gates=Gates(max_robustness_drop=1.0))[1].excess == 0.0
