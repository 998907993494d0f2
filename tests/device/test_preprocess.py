from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgekit.device import Preprocessing
from edgekit.device.preprocess import read_image
from edgekit.device.resize import resize
from edgekit.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (37, 53, 3), dtype=np.uint8)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
side = st.integers(1, 70)


@given(side, side, side, side, st.integers(0, 2**32 - 1))
def test_resize_is_pillows(height, width, new_height, new_width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for name, pillow in (("bilinear", Image.Resampling.BILINEAR), ("nearest", Image.Resampling.NEAREST)):
        expected = np.asarray(Image.fromarray(image).resize((new_width, new_height), pillow))
        difference = np.abs(resize(image, (new_height, new_width), name).astype(int) - expected)
        assert difference.max() <= (1 if name == "bilinear" else 0)


@pytest.mark.parametrize("size", [(37, 20), (37, 90), (20, 53), (90, 53), (37, 53), (90, 100)])
def test_one_pass_and_enlarging_are_pillows_to_the_byte(size):
    expected = np.asarray(Image.fromarray(IMAGE).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.array_equal(resize(IMAGE, size), expected)


def test_extremes_survive_resizing():
    for value in (0, 255):
        assert (resize(np.full((31, 17, 1), value, np.uint8), (7, 40)) == value).all()


def test_no_resize_is_torchs_to_tensor_and_normalize_to_the_bit():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = torch.from_numpy(IMAGE.copy()).permute(2, 0, 1).float() / 255
    expected = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    got = Preprocessing(size=(37, 53), mean=mean, std=std).apply(IMAGE)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert np.array_equal(got, expected[None].numpy())


def test_shorter_side_and_centre_crop():
    prepare = Preprocessing(size=(20, 24), shorter_side=26, **PLAIN, scale=1.0)
    small = np.asarray(Image.fromarray(IMAGE).resize((int(26 * 53 / 37), 26), Image.Resampling.BILINEAR))
    top, left = round((26 - 20) / 2), round((small.shape[1] - 24) / 2)
    expected = small[top : top + 20, left : left + 24].transpose(2, 0, 1)[None]
    assert np.abs(prepare.apply(IMAGE) - expected).max() <= 1
    tall = prepare.apply(np.ascontiguousarray(IMAGE.transpose(1, 0, 2)))
    assert tall.shape == (1, 3, 20, 24)


def test_colours_and_layouts():
    raw = {"size": (37, 53), "scale": 1.0}
    rgb = Preprocessing(**raw).apply(IMAGE)
    assert np.array_equal(Preprocessing(**raw, colour="BGR").apply(IMAGE), rgb[:, ::-1])
    assert np.array_equal(Preprocessing(**raw, layout="NHWC").apply(IMAGE), rgb.transpose(0, 2, 3, 1))
    grey = Preprocessing(**raw, mean=(0.0,), std=(1.0,))
    assert grey.colour == "grey"
    luma = np.asarray(Image.fromarray(IMAGE).convert("L"))
    assert np.array_equal(grey.apply(IMAGE)[0, 0], luma)
    assert np.array_equal(grey.apply(luma), grey.apply(luma[:, :, None]))
    assert np.array_equal(Preprocessing(**raw).apply(luma), np.repeat(grey.apply(luma), 3, axis=1))


def test_the_image_is_left_alone():
    before = IMAGE.copy()
    Preprocessing(size=(8, 8)).apply(IMAGE)
    assert np.array_equal(IMAGE, before)


def test_files(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    prepare = Preprocessing(size=(8, 8))
    assert np.array_equal(prepare.apply(tmp_path / "image.png"), prepare.apply(IMAGE))
    assert np.array_equal(prepare.apply(str(tmp_path / "image.png")), prepare.apply(IMAGE))
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(DataError, match="cannot read the image"):
        prepare.apply(tmp_path / "no.png")
    with pytest.raises(DataError, match="cannot read the image"):
        prepare.apply(tmp_path / "absent.png")


def test_an_image_without_end_is_refused(tmp_path, monkeypatch):
    Image.new("L", (1000, 1000)).save(tmp_path / "big.png")
    monkeypatch.setattr("edgekit.device.preprocess._MAX_PIXELS", 999_999)
    with pytest.raises(DataError, match="1000 x 1000 pixels"):
        read_image(tmp_path / "big.png")


def test_files_need_pillow(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(DataError) as caught:
        Preprocessing(size=(8, 8)).apply(tmp_path / "image.png")
    assert caught.value.way_out == "pip install 'edgekit[image]'"


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_refuses_what_is_no_image(image):
    with pytest.raises(DataError, match="where: image\n  rule: uint8 \\[height, width, 3\\]"):
        Preprocessing(size=(2, 2)).apply(image)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"size": (0, 4)}, "got (0, 4)\n  where: preprocessing.size"),
        ({"size": (4, 4, 4)}, "preprocessing.size"),
        ({"size": (True, 4)}, "preprocessing.size"),
        ({"shorter_side": 3}, "got 3\n  where: preprocessing.shorter_side\n  rule: at least 4"),
        ({"filter": "cubic"}, "got 'cubic'\n  where: preprocessing.filter"),
        ({"colour": "CMYK"}, "preprocessing.colour"),
        ({"layout": "CHW"}, "preprocessing.layout"),
        ({"scale": 0.0}, "preprocessing.scale"),
        ({"mean": (0.5, 0.5)}, "rule: 3 finite numbers, one for each channel of RGB"),
        ({"mean": (float("nan"),) * 3}, "preprocessing.mean"),
        ({"std": (1.0, 0.0, 1.0)}, "preprocessing.std\n  rule: positive numbers"),
    ],
)
def test_refuses_fields_out_of_range(fields, text):
    with pytest.raises(DataError) as caught:
        Preprocessing(**{"size": (4, 4), **fields})
    assert text in str(caught.value)


def test_dict_round_trip():
    one = Preprocessing(size=(20, 24), shorter_side=26, colour="BGR", mean=(0.1, 0.2, 0.3), layout="NHWC")
    assert Preprocessing.from_dict(one.to_dict()) == one


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"size": "4x4"}, "got '4x4'\n  where: bundle.pre.size\n  rule: a list of numbers"),
        ({"size": [4.5, 4]}, "where: bundle.pre.size"),
        ({"mean": [None]}, "where: bundle.pre.mean"),
        ({"scale": True}, "where: bundle.pre.scale"),
        ({"colour": None}, "where: bundle.pre.colour"),
        ({"std": [1, 1, 0]}, "where: bundle.pre.std\n  rule: positive numbers"),
        ({"shorter_side": "long"}, "where: bundle.pre.shorter_side"),
        ({"gamma": 2.2}, "missing or unknown: gamma\n  where: bundle.pre"),
    ],
)
def test_from_dict_names_the_path_to_the_fault(change, text):
    with pytest.raises(DataError) as caught:
        Preprocessing.from_dict({**Preprocessing(size=(4, 4)).to_dict(), **change}, "bundle.pre")
    assert text in str(caught.value)


def test_from_dict_wants_an_object():
    with pytest.raises(DataError, match="got list"):
        Preprocessing.from_dict([])
