from __future__ import annotations

import json
import math

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgekit.device import Detection, DetectionPostprocessing, ImagePreprocessing
from edgekit.errors import BundleError, DataError

LABELS = ("none", "cat", "dog")


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlap(a, b):
    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area(a) + area(b) - shared
    return shared / union if union > 0 else 0.0


def brute_force(boxes, scores, read):
    """Every candidate against every one that was kept before, in Python's own numbers."""
    candidates = [
        (-float(scores[i, c]), i, c)
        for i in range(len(boxes))
        for c in range(scores.shape[1])
        if scores[i, c] >= read.score_threshold and c != read.background and all(map(math.isfinite, boxes[i].tolist()))
    ]
    kept = []
    for score, i, c in sorted(candidates):
        rivals = (k for k in kept if read.class_agnostic or k[2] == c)
        if all(overlap(boxes[i].tolist(), boxes[k].tolist()) <= read.iou_threshold for _, k, _ in rivals):
            kept.append((score, i, c))
    return [(i, c, -score) for score, i, c in kept[: read.max_detections]]


def crowd(seed, number=40, classes=3):
    random = np.random.default_rng(seed)
    centre = random.choice([10.0, 14.0, 30.0], (number, 2)) + random.normal(0, 1, (number, 2))
    extent = random.uniform(0, 12, (number, 2)) * (random.random((number, 1)) > 0.1)
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1).astype(np.float32)
    scores = np.round(random.random((number, classes)), 1).astype(np.float32)  # with many ties
    return boxes, scores


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)
def test_suppression_is_that_of_the_definition(seed, overlap_at_most, threshold, agnostic, background):
    boxes, scores = crowd(seed)
    boxes[7] = [np.nan, 0, 1, np.inf]
    read = DetectionPostprocessing(
        boxes="b",
        scores="s",
        activation="probabilities",
        iou_threshold=overlap_at_most,
        score_threshold=threshold,
        class_agnostic=agnostic,
        background=background,
        max_detections=25,
    )
    expected = brute_force(boxes.astype(np.float64), scores.astype(np.float64), read)
    found = read.apply({"b": boxes[None], "s": scores[None]}, LABELS, size=(64, 64))
    assert [(each.index, each.confidence) for each in found] == [(c, score) for _, c, score in expected]
    for each, (i, _, _) in zip(found, expected, strict=True):
        assert np.allclose(each.box, np.clip(boxes[i], 0, 64))
        assert each.label == LABELS[each.index]


@given(st.integers(0, 2**32 - 1))
def test_suppression_is_onnxs(seed):
    boxes, scores = crowd(seed)
    scores += np.random.default_rng(seed).random(scores.shape, np.float32) / 20  # ONNX leaves ties open
    read = DetectionPostprocessing(
        boxes="b", scores="s", activation="probabilities", iou_threshold=0.4, score_threshold=0.3, max_detections=1000
    )
    node = helper.make_node("NonMaxSuppression", ["b", "s", "m", "i", "t"], ["k"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [value("b", TensorProto.FLOAT, [1, None, 4]), value("s", TensorProto.FLOAT, [1, None, None])],
        [value("k", TensorProto.INT64, [None, 3])],
        [
            helper.make_tensor("m", TensorProto.INT64, [1], [1000]),
            helper.make_tensor("i", TensorProto.FLOAT, [1], [0.4]),
            helper.make_tensor("t", TensorProto.FLOAT, [1], [0.3]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (kept,) = session.run(None, {"b": boxes[None], "s": scores.T[None]})
    found = read.apply({"b": boxes[None], "s": scores[None]}, LABELS, size=(64, 64))
    expected = {(int(c), float(scores[i, c])) for _, c, i in kept}
    assert {(each.index, np.float32(each.confidence)) for each in found} == expected


def test_boxes_in_every_format():
    corners = np.array([[2.0, 4.0, 10.0, 20.0]])
    base = {"boxes": "b", "scores": "s"}
    centred = DetectionPostprocessing(**base, format="cxcywh")
    assert np.allclose(centred.decoded(np.array([[6.0, 12.0, 8.0, 16.0]]), (32, 16)), corners)
    relative = DetectionPostprocessing(**base, coordinates="relative")
    assert np.allclose(relative.decoded(np.array([[2 / 16, 4 / 32, 10 / 16, 20 / 32]]), (32, 16)), corners)


def test_distances_are_counted_in_cells_from_their_centres():
    read = DetectionPostprocessing(boxes="b", scores="s", format="ltrb", strides=(8, 16))
    # An input of 20 x 30: 3 x 4 cells of 8 pixels, then 2 x 2 cells of 16.
    cells = read.cells((20, 30))
    assert cells.shape == (16, 3)
    assert cells[0].tolist() == [4, 4, 8]
    assert cells[1].tolist() == [12, 4, 8]
    assert cells[4].tolist() == [4, 12, 8]
    assert cells[12].tolist() == [8, 8, 16]
    assert cells[13].tolist() == [24, 8, 16]
    distances = np.tile(np.array([[0.5, 0.25, 1.0, 2.0]]), (16, 1))
    boxes = read.decoded(distances, (20, 30))
    assert boxes[5].tolist() == [12 - 4, 12 - 2, 12 + 8, 12 + 16]
    assert boxes[15].tolist() == [24 - 8, 24 - 4, 24 + 16, 24 + 32]
    scores = np.zeros((1, 15, 3), np.float32)
    with pytest.raises(BundleError, match="one for each of the 16 cells of an input of 20 x 30"):
        read.apply({"b": np.zeros((1, 15, 4), np.float32), "s": scores}, LABELS, size=(20, 30))


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop-resize", "resize-crop"])
def test_a_square_is_found_where_it_is_in_the_image(fit):
    """Paint a square, look for it in what the model would see, and map its box back."""
    image = np.zeros((90, 150, 3), np.uint8)
    image[33:63, 54:102] = 255
    prepare = ImagePreprocessing(
        size=(64, 64),
        fit=fit,
        pad=0 if fit == "letterbox" else None,
        shorter_side=80 if fit == "resize-crop" else None,
        antialias=False,
    )
    seen = prepare.apply(image)[0, 0] > 0.5
    rows, columns = np.nonzero(seen.any(axis=1))[0], np.nonzero(seen.any(axis=0))[0]
    box = np.array([[[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]], np.float32)
    read = DetectionPostprocessing(boxes="b", scores="s", activation="probabilities")
    (found,) = read.apply(
        {"b": box, "s": np.array([[[0.0, 0.9]]], np.float32)},
        ("cat", "dog"),
        size=(64, 64),
        placed=prepare.geometry((90, 150)),
        image=(90, 150),
    )
    assert np.allclose(found.box, [54, 33, 102, 63], atol=1.5)
    assert (found.label, round(found.confidence, 6)) == ("dog", 0.9)


def test_activations_and_labels():
    boxes = np.array([[[0, 0, 1, 1], [5, 5, 6, 6]]], np.float32)
    logits = np.array([[[0.0, 2.0], [3.0, 1.0]]], np.float32)
    base = {"boxes": "b", "scores": "s", "score_threshold": 0.6}
    by = {
        kind: DetectionPostprocessing(**base, activation=kind).apply({"b": boxes, "s": logits}, (), size=(9, 9))
        for kind in ("sigmoid", "softmax")
    }
    assert [each.confidence for each in by["softmax"]] == pytest.approx([1 / (1 + math.exp(-2))] * 2)
    assert [each.label for each in by["softmax"]] == ["1", "0"]  # of equal ones, the first box
    assert [each.confidence for each in by["sigmoid"]] == pytest.approx(
        [1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))]
    )
    one = by["softmax"][1]
    assert isinstance(one, Detection)
    assert str(one) == "0 (88.1%) at 5.0, 5.0, 6.0, 6.0"
    assert json.loads(json.dumps(one.to_dict()))["box"] == [5, 5, 6, 6]


def test_outputs_that_do_not_fit():
    read = DetectionPostprocessing(boxes="b", scores="s")
    for boxes, scores in (((1, 5, 4), (1, 4, 3)), ((2, 5, 4), (2, 5, 3)), ((5, 4), (5, 3)), ((1, 5, 4), (1, 5, 2))):
        with pytest.raises(BundleError, match="outputs 'b' and 's'"):
            read.apply({"b": np.zeros(boxes, np.float32), "s": np.zeros(scores, np.float32)}, LABELS, size=(9, 9))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"boxes": ""}, "b.post.boxes"),
        ({"scores": "b"}, "b.post.scores\n  rule: another output than boxes"),
        ({"format": "xywh"}, "b.post.format"),
        ({"strides": [8]}, "b.post.strides\n  rule: null"),
        ({"format": "ltrb"}, "b.post.strides"),
        ({"format": "ltrb", "strides": []}, "b.post.strides"),
        ({"format": "ltrb", "strides": [8, "8"]}, "b.post.strides"),
        ({"format": "ltrb", "strides": [8], "coordinates": "relative"}, "b.post.coordinates"),
        ({"coordinates": "metres"}, "b.post.coordinates"),
        ({"activation": "relu"}, "b.post.activation"),
        ({"background": -1}, "b.post.background"),
        ({"score_threshold": 1.5}, "b.post.score_threshold\n  rule: a number from 0 to 1"),
        ({"iou_threshold": "0.5"}, "b.post.iou_threshold"),
        ({"max_detections": 0}, "b.post.max_detections"),
        ({"class_agnostic": None}, "b.post.class_agnostic"),
    ],
)
def test_refuses_fields_out_of_range(change, text):
    whole = DetectionPostprocessing(boxes="b", scores="s").to_dict()
    assert DetectionPostprocessing.from_dict(json.loads(json.dumps(whole))).to_dict() == whole
    with pytest.raises(DataError) as caught:
        DetectionPostprocessing.from_dict({**whole, **change}, "b.post")
    assert text in str(caught.value)
