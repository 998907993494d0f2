import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind
from torch import nn

from edgekit.errors import DataError
from edgekit.explain.concepts import _p_value, concept_data, inputs_of, tcav


class Made(nn.Module):
    """Class 0 rises with what channel 0 holds, class 1 falls with it; channel 1 feeds nothing."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 3, 1, bias=False)
        self.act = nn.Softplus()
        self.head = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.copy_(torch.tensor([[1.0, 0.0, 0.3], [-1.0, 0.0, 0.3]]))

    def forward(self, x):
        return self.head(self.act(self.features(x)).mean((2, 3)))


def images(n, seed, **bright):
    x = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    for channel, value in bright.items():
        x[:, int(channel[1:])] += value
    return x


@pytest.fixture(scope="module")
def scores():
    net = Made().eval()
    # Each with its negative: else chance would make the examples redder or less red than the pool, in every repetition.
    half = images(10, 12)
    green = torch.cat([half, -half])
    green[:, 1] += 3
    concepts = {"red": images(20, 1, c0=3.0), "green": green}
    found = tcav(
        {"original": net},
        {"original": "features"},
        concepts,
        images(200, 3),
        {0: images(10, 4), 1: images(10, 5)},
        repetitions=24,
    )
    return {(each.concept, each.output): each for each in found}


def test_a_concept_that_matters_is_found_with_its_sign(scores):
    for output, wanted in ((0, 1.0), (1, 0.0)):
        each = scores["red", output]
        assert (each.score.value, each.score.n, each.samples) == (wanted, 24, 10)
        assert each.significant
        assert 0.1 < each.random.value < 0.9


def test_a_concept_that_feeds_nothing_is_not_significant(scores):
    for output in (0, 1):
        assert not scores["green", output].significant
        assert scores["green", output].p > 0.05


def test_the_p_value_is_welchs():
    rng = np.random.default_rng(0)
    a, b = rng.random(8), rng.random(8) * 0.3
    assert _p_value(a, b[:6]) == pytest.approx(ttest_ind(a, b[:6], equal_var=False).pvalue)
    assert (_p_value(np.ones(3), np.ones(3)), _p_value(np.ones(3), np.zeros(3))) == (1.0, 0.0)


def test_too_few_examples_are_said_to_be_so():
    with pytest.raises(DataError, match="3 examples, 200 samples to draw from"):
        tcav({"original": Made()}, {"original": "act"}, {"red": images(3, 1)}, images(200, 2), {0: images(4, 3)})


def test_images_without_preprocessing_are_refused_and_arrays_are_taken(tmp_path):
    with pytest.raises(DataError, match="0 images, and nothing says how the model takes them"):
        concept_data(str(tmp_path))
    np.savez(tmp_path / "red.npz", x=images(9, 1).numpy())
    assert inputs_of(concept_data(str(tmp_path / "red.npz")), Made(), 5).shape == (5, 3, 4, 4)
