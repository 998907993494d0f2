"""Zero-padded shortcuts as convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.quantize import rewrites


def shortcut(built, *, starts=(0, 0), steps=(2, 2), value=0.0, pads=(0, 2, 0, 0, 0, 2, 0, 0)):
    nodes = [
        ("Slice", ["x", "starts", "ends", "axes", "steps"], ["s"], {}),
        ("Pad", ["s", "pads", "value"], ["y"], {}),
    ]
    constants = {
        "starts": np.array(starts, np.int64),
        "ends": np.array([2**31 - 1] * 2, np.int64),
        "axes": np.array([2, 3], np.int64),
        "steps": np.array(steps, np.int64),
        "pads": np.array(pads, np.int64),
        "value": np.array(value, np.float32),
    }
    return built(nodes, constants)


@pytest.mark.parametrize("steps", [(2, 2), (1, 2), (3, 1)])
def test_a_zero_padded_shortcut_becomes_a_convolution(steps, built, applied):
    count, operators = applied(rewrites.shortcuts_to_convolutions, shortcut(built, steps=steps))
    assert (count, operators[-1]) == (1, "Conv")
    assert "Pad" not in operators


@pytest.mark.parametrize(
    "other",
    [{"starts": (1, 0)}, {"value": 1.0}, {"pads": (0, 2, 1, 0, 0, 2, 0, 0)}, {"pads": (0, -1, 0, 0, 0, 2, 0, 0)}],
    ids=["starts at the second row", "padded with ones", "padded in space", "channels cut off"],
)
def test_what_only_looks_like_a_shortcut_is_never_a_wrong_convolution(other, built, applied):
    count, operators = applied(rewrites.shortcuts_to_convolutions, shortcut(built, **other))
    # Where only the slice is odd, the padding alone may still become a convolution.
    assert count == 0 or ("starts" in other and "Slice" in operators)


def test_two_slices_that_follow_each_other_become_one_stride(built, applied):
    nodes = [
        ("Slice", ["x", "zero", "end", "rows", "two"], ["a"], {}),
        ("Slice", ["a", "zero", "end", "columns", "two"], ["s"], {}),
        ("Pad", ["s", "pads"], ["y"], {}),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "end": np.array([2**31 - 1], np.int64),
        "two": np.array([2], np.int64),
        "rows": np.array([2], np.int64),
        "columns": np.array([3], np.int64),
        "pads": np.array([0, 1, 0, 0, 0, 3, 0, 0], np.int64),
    }
    assert applied(rewrites.shortcuts_to_convolutions, built(nodes, constants))[0] == 1
