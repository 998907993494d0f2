import numpy as np
import pytest

from edgekit import stats
from edgekit.tasks import classification
from edgekit.validate import Score


@pytest.fixture(scope="session")
def score():
    """A score as `edgekit.validate.score` gives it, from outputs and targets in memory."""

    def make(outputs, target, task=None):
        task = task or classification()
        outputs = np.asarray(outputs)
        per_sample = task.scale * np.asarray(task.per_sample((outputs,), np.asarray(target)), dtype=np.float64)
        return Score(
            metric=stats.mean(per_sample),
            name=task.metric,
            unit=task.unit,
            higher_is_better=task.higher_is_better,
            per_sample=per_sample,
            outputs=(outputs,),
            target=np.asarray(target),
        )

    return make


@pytest.fixture(scope="session")
def logits():
    """Labels and the logits of two models that are right most of the time, and differ now and then."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 5, 400)
    before = 2.5 * np.eye(5)[target] + rng.normal(size=(400, 5))
    after = before + 0.8 * rng.normal(size=(400, 5))
    return target, before.astype(np.float32), after.astype(np.float32)
