"""What each kind of device needs."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper


def constants(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def weights(path):
    return [array for array in constants(path).values() if array.dtype == np.int8 and array.ndim >= 2]


def saturating_dot(activations, weight):
    """VPMADDUBSW: pairs of u8 * s8 products are added in 16 bits, and saturate."""
    products = activations.astype(np.int32) * weight.astype(np.int32)
    pairs = products.reshape(*products.shape[:-1], -1, 2).sum(-1)
    return np.clip(pairs, -32768, 32767).sum(-1), pairs.sum(-1)


@pytest.mark.parametrize(("target", "limit"), [("x86-vnni", 127), ("x86-avx2", 63), ("arm64", 127)])
def test_weights_stay_within_what_the_kernels_can_add(resnet, int8, target, limit):
    found = weights(int8(resnet, target=target).path)
    # Four convolutions, a shortcut and the head; only for ARM64 is the first convolution faster in int8.
    assert len(found) == (7 if target == "arm64" else 6)
    assert max(np.abs(array.astype(int)).max() for array in found) == limit


def test_seven_bit_weights_cannot_saturate_avx2_and_eight_bit_ones_do(resnet, int8):
    worst = np.full(16, 255, np.uint8)
    for target, saturates in (("x86-avx2", False), ("x86-vnni", True)):
        found = weights(int8(resnet, target=target).path)
        extreme = max(np.abs(array.astype(int)).max() for array in found)
        cut, exact = saturating_dot(worst, np.full(16, extreme, np.int8))
        assert (cut != exact) == saturates


@pytest.mark.parametrize(("target", "kind"), [("x86-vnni", np.uint8), ("x86-avx2", np.uint8), ("arm64", np.int8)])
def test_activations_have_the_type_that_the_kernels_take(resnet, int8, target, kind):
    done = int8(resnet, target=target)
    zeros = {np.dtype(scale.dtype) for scale in done.plan.activations.values()}
    assert zeros == {np.dtype(kind)}
    # Behind a ReLU the lowest integer is zero: only then does the ReLU vanish.
    lowest = np.iinfo(kind).min
    assert sum(scale.zero_point == lowest for scale in done.plan.activations.values()) >= 4


@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2", "arm64"])
def test_each_agrees_with_fp32(resnet, int8, run, draw, target):
    done = int8(resnet, target=target)
    # Only on ARM64 is the first convolution worth it.
    assert {node.precision for node in done.nodes} == ({"int8"} if target == "arm64" else {"int8", "fp32"})
    (feeds,) = draw(resnet, seed=4, batches=1)
    want, have = run(resnet.path, feeds), run(done.path, feeds)
    assert np.abs(want - have).max() <= 0.15 * np.abs(want).max()


def test_cuda_gets_fp16_inside_and_fp32_outside(resnet, int8, run, draw):
    done = int8(resnet, target="cuda")
    model = onnx.load(done.path)
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}
    floats = [array for array in constants(done.path).values() if np.issubdtype(array.dtype, np.floating)]
    assert {array.dtype for array in floats if array.ndim == 4} == {np.dtype(np.float16)}
    assert not [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    (feeds,) = draw(resnet, seed=4, batches=1)
    want, have = run(resnet.path, feeds), run(done.path, feeds)
    assert np.abs(want - have).max() <= 0.01 * np.abs(want).max()
    assert {node.precision for node in done.nodes} == {"fp16"}
