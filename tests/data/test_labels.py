import numpy as np
import pytest

from edgekit.data import Arrays, ImageFolder, relabelled
from edgekit.errors import DataError


@pytest.fixture
def folder(tmp_path, png, prepare):
    for name, value in {"cat": 1, "dog": 2, "emu": 3}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png(value))
    return ImageFolder(tmp_path, prepare)


def test_classes_get_the_numbers_of_the_model(folder):
    data = relabelled(folder, ["emu", "fox", "dog", "cat"], "train data")
    assert (data.classes, data.labels) == (["emu", "fox", "dog", "cat"], [3, 2, 0])
    pixels = [(round(float(image.mean()) * 255), label) for image, label in (data[0], data[1], data[2])]
    assert pixels == [(1, 3), (2, 2), (3, 0)]


def test_what_needs_no_numbers_stays_as_it_is(folder):
    assert relabelled(folder, ["cat", "dog", "emu"], "x") is folder
    arrays = Arrays({"x": np.zeros((2, 1)), "y": np.array([0, 1])}, "x")
    assert relabelled(arrays, ["a", "b"], "x") is arrays


def test_a_class_that_nobody_knows(folder):
    with pytest.raises(DataError, match="has the class 'dog' and 1 more") as caught:
        relabelled(folder, ["cat", "owl"], "test data")
    assert caught.value.where == "test data"
