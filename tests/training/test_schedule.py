from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from edgekit.training.schedule import Pace, learning_rate


def torch_rates(make, steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_one_cycle_is_torchs():
    expected = torch_rates(lambda o: OneCycleLR(o, 0.1, total_steps=102, pct_start=0.15), 101)
    # torch's warm-up ends at step 0.15 * total - 1, ours at 15 % of the steps: compare at the same share of each.
    warm, rest = 0.15 * 102 - 1, 101 - (0.15 * 102 - 1)
    for step, rate in enumerate(expected):
        share = 0.15 * step / warm if step <= warm else 0.15 + 0.85 * (step - warm) / rest
        assert learning_rate("one-cycle", 0.1, share) == pytest.approx(rate, rel=1e-6)


def test_cosine_is_torchs():
    expected = torch_rates(lambda o: CosineAnnealingLR(o, 100), 100)
    assert [learning_rate("cosine", 0.1, step / 100) for step in range(100)] == pytest.approx(expected)


def test_a_changed_end_keeps_the_progress_made_and_reaches_the_end():
    pace = Pace(steps=101)
    changed = pace.until(61, at=40).until(51, at=45)
    assert pace.progress(40) == 0.4
    assert changed.progress(45) == pytest.approx(0.4 + 0.6 * 5 / 20)
    assert changed.progress(50) == 1.0
    assert Pace(**changed.to_dict()) == changed
    assert Pace(steps=1).progress(0) == 1.0
