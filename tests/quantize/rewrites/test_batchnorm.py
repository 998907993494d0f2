"""Folding BatchNormalization, and what becomes of one that does not fold."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.quantize import rewrites

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def norm(channels):
    """Gamma, beta, mean and variance of a BatchNormalization."""
    return {
        "gamma": RNG.uniform(0.5, 1.5, channels).astype(np.float32),
        "beta": random(channels),
        "mean": random(channels),
        "variance": RNG.uniform(0.5, 2.0, channels).astype(np.float32),
    }


NORM = ["gamma", "beta", "mean", "variance"]
CONV = ("Conv", ["x", "w", "b"], ["c"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
CONV_WEIGHTS = {"w": random(6, 4, 3, 3), "b": random(6)}


@pytest.mark.parametrize("biased", [True, False])
def test_batchnorm_folds_into_a_convolution(biased, built, applied):
    conv = ("Conv", ["x", "w", "b"] if biased else ["x", "w"], ["c"], CONV[3])
    weights = CONV_WEIGHTS if biased else {"w": CONV_WEIGHTS["w"]}
    model = built([conv, ("BatchNormalization", ["c", *NORM], ["y"], {"epsilon": 0.01})], {**weights, **norm(6)})
    assert applied(rewrites.fold_batchnorm, model) == (1, ["Conv"])


@pytest.mark.parametrize("groups", [1, 2])
def test_batchnorm_folds_into_a_transposed_convolution(groups, built, applied):
    nodes = [
        ("ConvTranspose", ["x", "w"], ["c"], {"kernel_shape": [2, 2], "strides": [2, 2], "group": groups}),
        ("BatchNormalization", ["c", *NORM], ["y"], {}),
    ]
    model = built(nodes, {"w": random(4, 6 // groups, 2, 2), **norm(6)})
    assert applied(rewrites.fold_batchnorm, model) == (1, ["ConvTranspose"])


@pytest.mark.parametrize("turned", [0, 1])
def test_batchnorm_folds_into_a_gemm(turned, built, applied):
    nodes = [
        ("Gemm", ["x", "w", "b"], ["c"], {"transB": turned}),
        ("BatchNormalization", ["c", *NORM], ["y"], {}),
    ]
    model = built(nodes, {"w": random(5, 4) if turned else random(4, 5), "b": random(5), **norm(5)}, (4,))
    assert applied(rewrites.fold_batchnorm, model) == (1, ["Gemm"])


def test_batchnorm_behind_a_relu_or_a_branch_does_not_fold_but_becomes_depthwise(built, applied):
    relu = [CONV, ("Relu", ["c"], ["r"], {}), ("BatchNormalization", ["r", *NORM], ["y"], {})]
    model = built(relu, {**CONV_WEIGHTS, **norm(6)})
    assert applied(rewrites.fold_batchnorm, model)[0] == 0
    assert applied(rewrites.norms_to_convolutions, model) == (1, ["Conv", "Relu", "Conv"])
    branch = [CONV, ("BatchNormalization", ["c", *NORM], ["n"], {}), ("Add", ["c", "n"], ["y"], {})]
    assert applied(rewrites.fold_batchnorm, built(branch, {**CONV_WEIGHTS, **norm(6)}))[0] == 0


def test_batchnorm_does_not_fold_into_a_gemm_with_factors_of_its_own(built, applied):
    nodes = [
        ("Gemm", ["x", "w", "b"], ["c"], {"beta": 0.5}),
        ("BatchNormalization", ["c", *NORM], ["y"], {}),
    ]
    model = built(nodes, {"w": random(4, 5), "b": random(5), **norm(5)}, (4,))
    assert applied(rewrites.fold_batchnorm, model)[0] == 0
