import numpy as np
import torch
from sklearn.datasets import load_digits

from edgekit import demo
from edgekit.demo import digits
from edgekit.workload import digest_of


def test_the_two_parts_are_all_digits_and_share_none():
    train, test = digits.Digits("train"), digits.Digits("test")
    assert len(train) + len(test) == len(load_digits().target) == 1797
    seen = {image.numpy().tobytes() for image in train.images}
    shared = sum(image.numpy().tobytes() in seen for image in test.images)
    assert shared <= 1  # scikit-learn's set has hardly any image twice
    image, label = train[0]
    assert (image.shape, image.dtype) == ((1, 32, 32), torch.float32)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    assert 0 <= label <= 9


def test_augmentation_shifts_and_nothing_else():
    plain, shifted = digits.Digits("train"), digits.Digits("train", augment=True)
    torch.manual_seed(3)
    image, _ = shifted[5]
    original = np.pad(plain[5][0].numpy()[0], digits.MAX_SHIFT)
    windows = np.lib.stride_tricks.sliding_window_view(original, (32, 32))
    assert any(np.array_equal(window, image.numpy()[0]) for row in windows for window in row)


def test_the_workload_is_trained_once_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "EPOCHS", 0.5)
    first = demo.digits_workload(tmp_path)
    weights = digest_of(first.model())
    monkeypatch.setattr(demo, "fit", None)  # A second training would fail.
    assert digest_of(demo.digits_workload(tmp_path).model()) == weights
    assert weights != digest_of(digits.untrained())
    assert first.example(2).leaves()[0].shape == (2, 1, 32, 32)
