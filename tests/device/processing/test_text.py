from __future__ import annotations

import json

import numpy as np
import pytest

from edgekit.device import TextPostprocessing, Vocabulary
from edgekit.errors import BundleError, DataError

TOKENS = ("[PAD]", "[SEP]", "un", "##able", "the", "##")
VOCABULARY = Vocabulary.parse("\n".join(TOKENS).encode())


@pytest.mark.parametrize(
    ("ids", "options", "text"),
    [
        ([4, 2, 3], {}, "the unable"),
        ([4, 1, 2], {"stop": "[SEP]"}, "the"),
        ([0, 4, 0, 2], {"skip": ("[PAD]",)}, "the un"),
        ([3, 4], {}, "able the"),
        ([4, 5, 2], {}, "the un"),
        ([4, 2, 3], {"joiner": ""}, "theun##able"),
        ([1], {"stop": "[SEP]"}, ""),
        ([], {}, ""),
    ],
)
def test_ids_become_text(ids, options, text):
    read = TextPostprocessing(output="y", **options)
    assert read.apply({"y": np.array([ids], np.int64)}, VOCABULARY) == text
    scores = np.zeros((1, len(ids), len(TOKENS)), np.float32)
    scores[0, np.arange(len(ids)), ids] = 1
    assert read.apply({"y": scores}, VOCABULARY) == text
    assert TextPostprocessing.from_dict(json.loads(json.dumps(read.to_dict()))) == read


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array([[6]]), "id 6\n  where: output 'y'\n  rule: 0 to 5"),
        (np.array([[-1]]), "id -1"),
        (np.array([[1], [1]]), "got int64 [2, 1]"),
        (np.array([[0.5]]), "got float64 [1, 1]"),
        (np.zeros((1, 2, 0), np.float32), "got float32 [1, 2, 0]"),
    ],
)
def test_refuses_what_is_no_text(value, text):
    with pytest.raises(BundleError) as caught:
        TextPostprocessing(output="y").apply({"y": value}, VOCABULARY)
    assert text in str(caught.value)


def test_refuses_fields_out_of_range():
    for change, text in (
        ({"skip": [1]}, "b.post.skip"),
        ({"skip": "[PAD]"}, "b.post.skip"),
        ({"joiner": None}, "b.post.joiner"),
        ({"stop": ""}, "b.post.stop"),
    ):
        with pytest.raises(DataError) as caught:
            TextPostprocessing.from_dict({**TextPostprocessing(output="y").to_dict(), **change}, "b.post")
        assert text in str(caught.value)
