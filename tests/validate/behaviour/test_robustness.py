import colorsys
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.utils.data import TensorDataset

from edgekit.device import ImagePreprocessing
from edgekit.errors import EdgekitError
from edgekit.spec import IOSpec, TensorSpec
from edgekit.tasks import classification, imitation, regression
from edgekit.validate.behaviour import Inputs, robustness
from edgekit.validate.behaviour.perturbations import brightness, gaussian_blur, gaussian_noise, jpeg, suite
from edgekit.validate.behaviour.pixels import image_input, pixel_space

RNG = np.random.default_rng(0)
PICTURES = RNG.random((6, 12, 10, 3), dtype=np.float32)
PREPARE = ImagePreprocessing(size=(12, 10), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def spec_of(shape=("batch", 3, 12, 10), dtype="float32", name="x"):
    return IOSpec(inputs=(TensorSpec(name=name, dtype=dtype, shape=shape),), outputs=())


def normal(pictures):
    return ((pictures - PREPARE.mean) / PREPARE.std).transpose(0, 3, 1, 2).astype(np.float32)


def inputs_of(values, spec, target=None, **options):
    target = torch.zeros(len(values), dtype=torch.int64) if target is None else torch.as_tensor(target)
    return Inputs(data=TensorDataset(torch.as_tensor(values), target), spec=spec, **options)


def test_blur_is_that_of_scipy():
    for sigma in (0.4, 1.0, 3.0):
        want = np.stack([gaussian_filter(p, sigma=(sigma, sigma, 0), mode="nearest", truncate=4) for p in PICTURES])
        np.testing.assert_allclose(gaussian_blur(PICTURES, sigma), want, atol=1e-5)


def test_brightness_is_that_of_hsv():
    pictures = PICTURES.copy()
    pictures[0, 0, 0] = 0
    found = brightness(pictures, 0.3)
    for at in np.ndindex(6, 12, 10):
        h, s, v = colorsys.rgb_to_hsv(*pictures[at].tolist())
        np.testing.assert_allclose(found[at], colorsys.hsv_to_rgb(h, s, min(v + 0.3, 1)), atol=1e-6)


def test_noise_has_the_spread_that_it_says():
    flat = np.full((4, 50, 50, 3), 0.5, np.float32)
    moved = gaussian_noise(flat, 0.08, np.random.default_rng(1)) - flat
    assert moved.std() == pytest.approx(0.08, rel=0.03)
    assert abs(moved.mean()) < 0.002


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_pillow(channels):
    pictures = PICTURES[..., :channels]
    found = jpeg(pictures, 40)
    for picture, through in zip(pictures, found, strict=True):
        file = io.BytesIO()
        Image.fromarray(np.rint(255 * picture).astype(np.uint8).squeeze()).save(file, "JPEG", quality=40)
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.rint(255 * through).squeeze(), np.asarray(image))


def test_pixels_come_back_through_the_preprocessing():
    inputs = inputs_of(normal(PICTURES), spec_of(), preprocessing=PREPARE)
    space = pixel_space(inputs)
    assert space.source == "the workload's preprocessing"
    np.testing.assert_allclose(space.pixels(normal(PICTURES)), PICTURES, atol=1e-6)
    back = space.values(PICTURES, np.dtype("float32"))
    np.testing.assert_allclose(back, normal(PICTURES), atol=1e-5)
    # What `Preprocessing.apply` makes of bytes is what these bytes' pixels are.
    picture = np.rint(255 * PICTURES[0]).astype(np.uint8)
    np.testing.assert_allclose(space.pixels(PREPARE.apply(picture))[0], picture / 255, atol=1e-6)


def test_blue_comes_first_where_the_preprocessing_says_so():
    known = replace(PREPARE, colour="BGR", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    space = pixel_space(inputs_of(PICTURES.transpose(0, 3, 1, 2), spec_of(), preprocessing=known))
    np.testing.assert_allclose(space.pixels(PICTURES.transpose(0, 3, 1, 2)), PICTURES[..., ::-1], atol=1e-6)
    values = space.values(PICTURES[..., ::-1], np.dtype("float32"))
    np.testing.assert_allclose(values, PICTURES.transpose(0, 3, 1, 2), atol=1e-6)


@pytest.mark.parametrize("known", [None, ImagePreprocessing(size=(12, 10))])
def test_else_each_channel_is_scaled_by_its_own_range(known):
    # The second is a preprocessing that these values cannot have come from.
    values = normal(PICTURES)
    space = pixel_space(inputs_of(values, spec_of(), preprocessing=known))
    assert "own range" in space.source
    np.testing.assert_allclose(space.black, values.min(axis=(0, 2, 3)))
    np.testing.assert_allclose(space.white, values.max(axis=(0, 2, 3)))


def test_bytes_and_channels_at_the_end():
    values = np.rint(255 * PICTURES).astype(np.uint8)
    space = pixel_space(inputs_of(values, spec_of(("batch", 12, 10, 3), "uint8")))
    np.testing.assert_allclose(space.pixels(values), values / 255, atol=1e-6)
    np.testing.assert_array_equal(space.values(space.pixels(values), values.dtype), values)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (("n", 4, 12, 10), "float32"),
        (("n", 3, 4, 10), "float32"),
        (("n", 3, 12), "float32"),
        (("n", 3, 12, 10), "int64"),
    ],
)
def test_what_is_no_image(shape, dtype):
    assert image_input(spec_of(shape, dtype)) is None


def test_the_strengths_follow_the_size():
    small = suite(inputs_of(normal(PICTURES), spec_of()))
    large = suite(inputs_of(np.zeros((2, 1, 65, 8), np.float32), spec_of(("n", 1, 65, 8))))
    assert (small.scale, large.scale) == ("CIFAR-10-C", "ImageNet-C")
    assert [(each.name, each.severity, each.setting) for each in small.perturbations][::3] == [
        ("gaussian noise", 1, "σ 0.04 of white"),
        ("gaussian blur", 1, "σ 0.4 pixels"),
        ("brightness", 1, "value + 0.05"),
        ("jpeg", 1, "quality 80"),
    ]
    assert [each.setting for each in large.perturbations[-3:]] == ["quality 25", "quality 15", "quality 7"]


def test_an_image_is_perturbed_in_bytes_and_normalized_again():
    inputs = inputs_of(normal(PICTURES), spec_of(), preprocessing=PREPARE)
    brighter = next(p for p in suite(inputs).perturbations if p.name == "brightness" and p.severity == 5)
    found = brighter.apply({"x": normal(PICTURES), "other": np.ones(6)}, np.random.default_rng(0))
    want = np.rint(255 * brightness(PICTURES, 0.3)) / 255
    np.testing.assert_allclose(found["x"], normal(want), atol=0.03)
    assert found["x"].dtype == np.float32
    assert list(found) == ["x", "other"]


def test_other_real_numbers_get_noise_in_shares_of_their_spread():
    values = np.random.default_rng(2).normal(size=(400, 3)) * [1.0, 10.0, 0.0]
    found = suite(inputs_of(values.astype(np.float32), spec_of(("n", 3))))
    assert "only noise" in found.source
    strongest = found.perturbations[-1]
    given = np.zeros((4000, 3), np.float32)
    moved = strongest.apply({"x": given}, np.random.default_rng(3))["x"]
    assert strongest.setting == "σ 0.5 of each channel's"
    np.testing.assert_allclose(moved.std(axis=0), [0.5, 5.0, 0.0], rtol=0.1)


def test_tokens_are_refused_in_words():
    tokens = inputs_of(np.ones((4, 7), np.int64), spec_of(("n", 7), "int64", "tokens"))
    assert suite(tokens).startswith("none for these inputs (tokens int64): whole numbers")


@pytest.fixture
def linear(tmp_path):
    """An ONNX file that multiplies flat pictures [n, 3 * 12 * 10] with weights."""

    def make(name, weights, power=1.0):
        nodes = [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["sums"]),
            helper.make_node("Pow", ["sums", "power"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 12, 10])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weights.shape[1]])],
            [
                numpy_helper.from_array(weights.astype(np.float32), "w"),
                numpy_helper.from_array(np.array(power, np.float32), "power"),
            ],
        )
        path = tmp_path / f"{name}.onnx"
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return path

    return make


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(5).normal(size=(360, 4))


def test_both_files_are_scored_on_the_same_perturbed_inputs(linear, weights):
    values = normal(np.random.default_rng(6).random((40, 12, 10, 3)))
    target = (values.reshape(40, -1) @ weights).argmax(1)
    other = weights + 0.3 * np.random.default_rng(7).normal(size=weights.shape)
    inputs = inputs_of(values, spec_of(), target, preprocessing=PREPARE)
    files = linear("before", weights), linear("after", other)
    found = robustness(*files, classification(), inputs, time_s=100)
    assert (found.n, found.asked, len(found.slices), found.unit) == (40, 40, 12, "points")
    assert (found.clean.reference.value, found.clean.severity) == (100, 0)
    lost = 100 * ((values.reshape(40, -1) @ other).argmax(1) != target).mean()
    assert found.clean.drop.value == pytest.approx(lost)
    # Brightness draws nothing, so it can be done again: on all pictures at once, with numpy alone.
    for strength, row in zip((0.05, 0.15, 0.3), found.slices[6:9], strict=True):
        pixels = values.transpose(0, 2, 3, 1) * PREPARE.std + PREPARE.mean
        again = normal(np.rint(255 * brightness(pixels, strength)) / 255).reshape(40, -1)
        before, after = ((again @ w).argmax(1) == target for w in (weights, other))
        assert row.perturbation == "brightness"
        assert row.reference.value == pytest.approx(100 * before.mean(), abs=2.6)
        assert row.drop.value == pytest.approx(100 * (before.mean() - after.mean()), abs=2.6)
        assert row.added.value == pytest.approx(row.drop.value - found.clean.drop.value)
    assert found.drop.value == pytest.approx(np.mean([row.drop.value for row in found.slices]))
    assert found.worst.drop.value == max(row.drop.value for row in found.slices)
    assert found.to_dict()["worst"]["drop"]["value"] == found.worst.drop.value
    assert robustness(*files, classification(), inputs, time_s=100) == found


def test_a_file_against_itself_loses_nothing_and_time_ends_it(linear, weights):
    values = normal(np.random.default_rng(6).random((50, 12, 10, 3)))
    path, steps = linear("same", weights), []
    ticks = iter(range(100))
    found = robustness(
        path,
        path,
        classification(),
        inputs_of(values, spec_of()),
        time_s=2,
        clock=lambda: float(next(ticks)),
        progress=steps.append,
    )
    assert (found.n, found.asked) == (32, 50)
    assert (found.drop.value, found.drop.high) == (0, 0)
    assert [(step.done, step.total) for step in steps] == [(1, 4), (2, 4)]
    with pytest.raises(EdgekitError, match="got 0"):
        robustness(path, path, classification(), inputs_of(values, spec_of()), time_s=0)


def test_answers_that_are_no_numbers_are_wrong_ones(linear, weights):
    values = normal(np.random.default_rng(6).random((20, 12, 10, 3)))
    target = (values.reshape(20, -1) @ weights).argmax(1)
    inputs = inputs_of(values, spec_of(), target, preprocessing=PREPARE)
    roots = linear("roots", weights, power=0.5)  # NaN for every negative sum
    found = robustness(linear("before", weights), roots, classification(), inputs, time_s=100)
    sums = values.reshape(20, -1) @ weights
    assert found.clean.not_finite == (sums < 0).any(axis=1).sum() > 0
    assert found.clean.candidate.value == pytest.approx(100 * (sums >= 0).all(axis=1).mean())
    wanted = np.zeros((20, 4), np.float32)
    quantities = robustness(
        linear("before", weights), roots, regression(), inputs_of(values, spec_of(), wanted), time_s=100
    )
    kept = (sums >= 0).all(axis=1)
    assert quantities.clean.reference is None or quantities.clean.reference.n == kept.sum()


def test_where_the_original_is_the_reference_it_answers_the_perturbed_input(linear, weights):
    values = normal(np.random.default_rng(6).random((10, 12, 10, 3)))
    target = (values.reshape(10, -1) @ weights).astype(np.float32)
    path = linear("same", weights)
    found = robustness(path, path, imitation(), inputs_of(values, spec_of(), target), time_s=100)
    assert [row.reference.value for row in found.slices] == pytest.approx([100.0] * 12)
