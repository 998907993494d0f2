"""Training images that are moved, and those that are not."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from edgekit.compress import Settings
from edgekit.errors import DataError, EdgekitError
from edgekit.tasks import classification, multilabel, regression
from edgekit.training import augmentation_for, augmented, is_fixed

PICTURES = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 4


class Noisy(TensorDataset):
    """Data that augment themselves."""

    def __getitem__(self, index):
        first, *rest = super().__getitem__(index)
        return (first + torch.rand(()), *rest)


def chosen(data, task=None, name="auto"):
    return augmentation_for(name, data, task=task or classification(), model=nn.Identity())


@pytest.mark.parametrize(
    ("data", "task", "kind"),
    [
        (TensorDataset(PICTURES, LABELS), classification(), "shift"),
        (TensorDataset(PICTURES[:, :1], LABELS), classification(), "shift"),
        ([(picture, int(label)) for picture, label in zip(PICTURES, LABELS, strict=True)], classification(), "shift"),
        ([(picture, np.int64(1)) for picture in PICTURES], classification(), "shift"),
        (TensorDataset(PICTURES, torch.ones(16, 5)), multilabel(), "shift"),
        (Noisy(PICTURES, LABELS), classification(), "none"),
        (TensorDataset(PICTURES, torch.ones(16, 16, 16).long()), classification(), "none"),
        (TensorDataset(PICTURES, torch.ones(16, 4)), regression(), "none"),
        (TensorDataset(torch.rand(16, 8, 16, 16), LABELS), classification(), "none"),
        (TensorDataset(PICTURES[..., :4], LABELS), classification(), "none"),
        (TensorDataset((255 * PICTURES).byte(), LABELS), classification(), "none"),
        (TensorDataset(torch.rand(16, 40, 16), LABELS), classification(), "none"),
        (TensorDataset(PICTURES), classification(), "none"),
        ([PICTURES[0], PICTURES[1]], classification(), "none"),
    ],
    ids=[
        *("colour", "grey", "numbers", "numpy", "several labels", "augmented already", "masks", "positions", "spectra"),
        *("tiny", "bytes", "sequences", "no labels", "bare"),
    ],
)
def test_pictures_with_a_label_that_come_out_alike_are_shifted(data, task, kind):
    assert chosen(data, task) == kind


def test_a_choice_is_kept_where_it_can_be():
    noisy = Noisy(PICTURES, LABELS)
    assert [chosen(noisy, name=name) for name in ("none", "shift", "mirror")] == ["none", "shift", "mirror"]
    with pytest.raises(
        DataError, match=r"augment is 'mirror'.*\(torch.float32 \[3, 16, 16\], torch.int64 \[16, 16\]\)"
    ):
        chosen(TensorDataset(PICTURES, torch.ones(16, 16, 16).long()), name="mirror")
    with pytest.raises(DataError, match="for the task regression"):
        chosen(TensorDataset(PICTURES, torch.ones(16, 2)), regression(), name="shift")
    with pytest.raises(EdgekitError, match="one of auto, none, shift, mirror"):
        Settings(augment="rotate")


def test_shifted_pictures_are_the_picture_elsewhere():
    picture = torch.arange(256.0).reshape(1, 16, 16)
    data = augmented([(picture, 5)], "mirror")
    framed = F.pad(picture[None], (2, 2, 2, 2), mode="replicate")[0]
    views = [framed[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
    known = [view for each in views for view in (each, each.flip(-1))]
    seen = set()
    for _ in range(200):
        image, label = data[0]
        assert label == 5
        seen.add(next(index for index, view in enumerate(known) if torch.equal(view, image)))
    assert len(seen) > 40
    moved = augmented([picture], "shift")[0]
    assert any(torch.equal(view, moved) for view in views)


def test_augmented_data_are_not_fixed():
    assert is_fixed(TensorDataset(PICTURES, LABELS), nn.Identity())
    assert not is_fixed(Noisy(PICTURES, LABELS), nn.Identity())
    assert not is_fixed(augmented(TensorDataset(PICTURES, LABELS), "shift"), nn.Identity())
