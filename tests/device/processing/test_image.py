from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgekit.device import ImagePreprocessing
from edgekit.device.processing.image import read_image
from edgekit.device.processing.resize import resize
from edgekit.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (37, 53, 3), dtype=np.uint8)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
side = st.integers(1, 70)
PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


def noise(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.tuples(side, side), st.tuples(side, side), st.integers(0, 2**32 - 1), st.sampled_from(sorted(PILLOW)))
def test_resize_is_pillows_to_the_byte(old, new, seed, name):
    image, (new_height, new_width) = noise(*old, seed), new
    expected = np.asarray(Image.fromarray(image).resize((new_width, new_height), PILLOW[name]))
    rows_first = resize(image, (new_height, new_width), name)
    # Which pass Pillow makes first depends on its version and on the sizes.
    columns_first = resize(image.swapaxes(0, 1), (new_width, new_height), name).swapaxes(0, 1)
    assert np.array_equal(rows_first, expected) or np.array_equal(columns_first, expected)


@pytest.mark.parametrize("size", [(37, 20), (37, 90), (20, 53), (90, 53), (37, 53)])
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_one_pass_is_pillows_to_the_byte(size, name):
    expected = np.asarray(Image.fromarray(IMAGE).resize(size[::-1], PILLOW[name]))
    assert np.array_equal(resize(IMAGE, size, name), expected)


@given(
    st.tuples(side, side), st.tuples(side, side), st.integers(0, 2**32 - 1), st.sampled_from(["bilinear", "bicubic"])
)
def test_without_antialiasing_resize_is_torchs_in_float64(old, new, seed, name):
    image, (new_height, new_width) = noise(*old, seed), new
    planes = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(planes, (new_height, new_width), mode=name, align_corners=False)
    exact = scaled[0].permute(1, 2, 0).numpy()
    got = resize(image, (new_height, new_width), name, antialias=False)
    # Half a level may be rounded either way, where the last bit decides.
    tie = np.abs(exact - np.floor(exact) - 0.5) < 1e-9
    assert np.array_equal(got[~tie], np.clip(np.floor(exact + 0.5), 0, 255)[~tie])
    assert np.all(np.abs(got - exact)[tie & (exact > 0) & (exact < 255)] < 0.5 + 1e-9)


def test_extremes_survive_resizing():
    for value, name, antialias in itertools.product((0, 255), PILLOW, (True, False)):
        flat = np.full((31, 17, 1), value, np.uint8)
        assert (resize(flat, (7, 40), name, antialias=antialias) == value).all()


def test_no_resize_is_torchs_to_tensor_and_normalize_to_the_bit():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = torch.from_numpy(IMAGE.copy()).permute(2, 0, 1).float() / 255
    expected = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    got = ImagePreprocessing(size=(37, 53), mean=mean, std=std).apply(IMAGE)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert np.array_equal(got, expected[None].numpy())


def test_shorter_side_and_centre_crop():
    prepare = ImagePreprocessing(size=(20, 24), fit="resize-crop", shorter_side=26, **PLAIN, scale=1.0)
    small = np.asarray(Image.fromarray(IMAGE).resize((int(26 * 53 / 37), 26), Image.Resampling.BILINEAR))
    top, left = round((26 - 20) / 2), round((small.shape[1] - 24) / 2)
    expected = small[top : top + 20, left : left + 24].transpose(2, 0, 1)[None]
    assert np.abs(prepare.apply(IMAGE) - expected).max() <= 1
    tall = prepare.apply(np.ascontiguousarray(IMAGE.transpose(1, 0, 2)))
    assert tall.shape == (1, 3, 20, 24)


RAW = {**PLAIN, "scale": 1.0, "layout": "NHWC"}


def test_the_largest_centred_part_is_cut_out_first():
    for shape, size, part in (
        ((30, 50), (10, 10), np.s_[:, 10:40]),
        ((50, 30), (10, 10), np.s_[10:40, :]),
        ((31, 50), (9, 6), np.s_[:, 15:35]),
        ((50, 31), (4, 12), np.s_[20:30, :]),
        ((7, 1), (3, 900), np.s_[3:4, :]),
    ):
        image = noise(*shape, 3)
        got = ImagePreprocessing(size=size, fit="crop-resize", **RAW).apply(image)[0]
        assert np.array_equal(got, resize(image[part], size))


def test_a_letterbox_keeps_proportions_and_fills_the_rest():
    prepare = ImagePreprocessing(size=(40, 60), fit="letterbox", pad=114, **RAW)
    got = prepare.apply(noise(30, 90, 4))[0]
    assert np.array_equal(got[10:30], resize(noise(30, 90, 4), (20, 60)))
    assert (got[:10] == 114).all()
    assert (got[30:] == 114).all()
    high = prepare.apply(noise(81, 20, 4))[0]  # 20 * 40 / 81 is 9.88; 50 columns are left, 25 on each side
    assert np.array_equal(high[:, 25:35], resize(noise(81, 20, 4), (40, 10)))
    assert (high[:, :25] == 114).all()
    assert (high[:, 35:] == 114).all()
    thread = prepare.apply(noise(1, 9000, 4))[0]
    assert (thread[19:20] != 114).any()
    assert (thread[:19] == 114).all()


@given(side, side, side, side, st.sampled_from(["stretch", "resize-crop", "crop-resize", "letterbox"]))
def test_boxes_find_the_way_back(height, width, rows, columns, fit):
    """The corners of what the model sees are where a map of coordinates, resized likewise, says that they are."""
    shorter = max(rows, columns) + 3 if fit == "resize-crop" else None
    placed = ImagePreprocessing(
        size=(rows, columns), fit=fit, shorter_side=shorter, pad=0 if fit == "letterbox" else None
    ).geometry((height, width))
    top, left, cut_height, cut_width = placed.cut
    # Where the resized part begins and ends on the canvas, in the image it is the part's own border.
    (down, right), (tall, wide) = placed.offset, placed.resized
    box = np.array([[right, down, right + wide, down + tall]], np.float64)
    assert np.allclose(placed.back(box), [[left, top, left + cut_width, top + cut_height]], atol=1e-9)
    if fit != "letterbox":
        inside = placed.back(np.array([[0, 0, columns, rows]], np.float64))[0]
        assert inside.min() >= -1e-9
        assert inside[2] <= width + 1e-9
        assert inside[3] <= height + 1e-9


def test_a_strip_that_would_grow_without_end_is_refused():
    prepare = ImagePreprocessing(size=(224, 224), fit="resize-crop", shorter_side=256)
    with pytest.raises(DataError, match="an image of 1 x 100000000 pixels"):
        prepare.geometry((1, 10**8))


def test_colours_and_layouts():
    raw = {"size": (37, 53), "scale": 1.0}
    rgb = ImagePreprocessing(**raw).apply(IMAGE)
    assert np.array_equal(ImagePreprocessing(**raw, colour="BGR").apply(IMAGE), rgb[:, ::-1])
    assert np.array_equal(ImagePreprocessing(**raw, layout="NHWC").apply(IMAGE), rgb.transpose(0, 2, 3, 1))
    grey = ImagePreprocessing(**raw, mean=(0.0,), std=(1.0,))
    assert grey.colour == "grey"
    luma = np.asarray(Image.fromarray(IMAGE).convert("L"))
    assert np.array_equal(grey.apply(IMAGE)[0, 0], luma)
    assert np.array_equal(grey.apply(luma), grey.apply(luma[:, :, None]))
    assert np.array_equal(ImagePreprocessing(**raw).apply(luma), np.repeat(grey.apply(luma), 3, axis=1))


def test_the_image_is_left_alone():
    before = IMAGE.copy()
    ImagePreprocessing(size=(8, 8)).apply(IMAGE)
    assert np.array_equal(IMAGE, before)


def test_files(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    prepare = ImagePreprocessing(size=(8, 8))
    assert np.array_equal(prepare.apply(tmp_path / "image.png"), prepare.apply(IMAGE))
    assert np.array_equal(prepare.apply(str(tmp_path / "image.png")), prepare.apply(IMAGE))
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(DataError, match="cannot read the image"):
        prepare.apply(tmp_path / "no.png")
    with pytest.raises(DataError, match="cannot read the image"):
        prepare.apply(tmp_path / "absent.png")


def test_an_image_without_end_is_refused(tmp_path, monkeypatch):
    Image.new("L", (1000, 1000)).save(tmp_path / "big.png")
    monkeypatch.setattr("edgekit.device.processing.image.MAX_PIXELS", 999_999)
    with pytest.raises(DataError, match="1000 x 1000 pixels"):
        read_image(tmp_path / "big.png")


def test_files_need_pillow(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(DataError) as caught:
        ImagePreprocessing(size=(8, 8)).apply(tmp_path / "image.png")
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
        ImagePreprocessing(size=(2, 2)).apply(image)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"size": (0, 4)}, "got [0, 4]\n  where: preprocessing.size"),
        ({"size": (4, 4, 4)}, "preprocessing.size"),
        ({"size": (True, 4)}, "preprocessing.size"),
        ({"shorter_side": 8}, "got 8\n  where: preprocessing.shorter_side\n  rule: null, but for the fit resize-crop"),
        ({"fit": "resize-crop", "shorter_side": 3}, "preprocessing.shorter_side\n  rule: an integer from 4 to 16384"),
        ({"fit": "resize-crop"}, "got None\n  where: preprocessing.shorter_side"),
        ({"fit": "letterbox"}, "got None\n  where: preprocessing.pad\n  rule: an integer from 0 to 255"),
        ({"fit": "squeeze"}, "preprocessing.fit"),
        ({"pad": 0}, "got 0\n  where: preprocessing.pad\n  rule: null"),
        ({"filter": "nearest", "antialias": True}, "preprocessing.antialias\n  rule: false for the filter nearest"),
        ({"antialias": 1}, "got 1\n  where: preprocessing.antialias"),
        ({"filter": "cubic"}, "got 'cubic'\n  where: preprocessing.filter"),
        ({"colour": "CMYK"}, "preprocessing.colour"),
        ({"layout": "CHW"}, "preprocessing.layout"),
        ({"scale": 0.0}, "preprocessing.scale"),
        ({"mean": (0.5, 0.5)}, "rule: 3 finite numbers, one for each channel of RGB"),
        ({"mean": (float("nan"),) * 3}, "preprocessing.mean"),
        ({"std": (1.0, 0.0, 1.0)}, "preprocessing.std\n  rule: 3 positive numbers"),
    ],
)
def test_refuses_fields_out_of_range(fields, text):
    with pytest.raises(DataError) as caught:
        ImagePreprocessing(**{"size": (4, 4), **fields})
    assert text in str(caught.value)


def test_dict_round_trip():
    one = ImagePreprocessing(
        size=(20, 24), fit="resize-crop", shorter_side=26, colour="BGR", mean=(0.1, 0.2, 0.3), layout="NHWC"
    )
    assert ImagePreprocessing.from_dict(one.to_dict()) == one


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"size": "4x4"}, "got '4x4'\n  where: bundle.pre.size\n  rule: height and width in pixels"),
        ({"size": [4.5, 4]}, "where: bundle.pre.size"),
        ({"mean": [None]}, "where: bundle.pre.mean"),
        ({"scale": True}, "where: bundle.pre.scale"),
        ({"colour": None}, "where: bundle.pre.colour"),
        ({"std": [1, 1, 0]}, "where: bundle.pre.std\n  rule: 3 positive numbers"),
        ({"shorter_side": "long"}, "where: bundle.pre.shorter_side"),
        ({"antialias": None}, "where: bundle.pre.antialias\n  rule: True"),
        ({"size": [[], {}]}, "where: bundle.pre.size"),
        ({"filter": []}, "where: bundle.pre.filter"),
        ({"gamma": 2.2}, "unknown key 'gamma'\n  where: bundle.pre"),
    ],
)
def test_from_dict_names_the_path_to_the_fault(change, text):
    with pytest.raises(DataError) as caught:
        ImagePreprocessing.from_dict({**ImagePreprocessing(size=(4, 4)).to_dict(), **change}, "bundle.pre")
    assert text in str(caught.value)


def test_from_dict_wants_an_object():
    with pytest.raises(DataError, match="got list"):
        ImagePreprocessing.from_dict([])
