"""Small networks as ONNX graphs, fp32 and with Q/DQ."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.sshd import real_host  # noqa: F401 - a fixture


class Maker:
    """An ONNX graph in the making; weights differ from seed to seed."""

    def __init__(self, seed=0, prefix=""):
        self.rng, self.prefix = np.random.default_rng(seed), prefix
        self.nodes, self.constants = [], []

    def constant(self, array):
        name = f"{self.prefix}const{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape):
        return self.constant(self.rng.standard_normal(shape).astype(np.float32))

    def node(self, op, *inputs, **attributes):
        name = f"{self.prefix}{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def conv(self, value, channels, outputs, kernel=3, stride=1):
        pads = [kernel // 2] * 4
        weight, bias = self.weight(outputs, channels, kernel, kernel), self.weight(outputs)
        return self.node("Conv", value, weight, bias, pads=pads, strides=[stride] * 2, kernel_shape=[kernel] * 2)

    def quantize(self, value, zero=128, scale=0.1):
        return self.node("QuantizeLinear", value, *self._grid(zero, scale))

    def dequantize(self, value, zero=128, scale=0.1):
        return self.node("DequantizeLinear", value, *self._grid(zero, scale))

    def int8_conv(self, value, channels, outputs, zero=128, scale=0.1):
        """Of a quantized value; not yet quantized again."""
        weight = self.constant(self.rng.integers(-127, 128, (outputs, channels, 3, 3)).astype(np.int8))
        per_channel = np.full(outputs, 0.01, np.float32)
        scales, zeros = self.constant(per_channel), self.constant(np.zeros(outputs, np.int8))
        bias = self.constant(self.rng.integers(-99, 99, outputs).astype(np.int32))
        bias_scales = self.constant(np.float32(scale) * per_channel)
        bias_zeros = self.constant(np.zeros(outputs, np.int32))
        reads = (
            self.dequantize(value, zero, scale),
            self.node("DequantizeLinear", weight, scales, zeros, axis=0),
            self.node("DequantizeLinear", bias, bias_scales, bias_zeros, axis=0),
        )
        return self.node("Conv", *reads, pads=[1] * 4, kernel_shape=[3, 3])

    def _grid(self, zero, scale):
        return self.constant(np.array(scale, np.float32)), self.constant(np.array(zero, np.uint8))

    def model(self, output, shape=("batch", 3, 16, 16), input_name="x"):
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def residual(seed=0, prefix="", blocks=2, inner=16, width=16):
    """A small ResNet in fp32."""
    maker = Maker(seed, prefix)
    value = maker.node("Relu", maker.conv("x", 3, width))
    for _ in range(blocks):
        first = maker.node("Relu", maker.conv(value, width, inner))
        value = maker.node("Relu", maker.node("Add", maker.conv(first, inner, width), value))
    pooled = maker.node("GlobalAveragePool", value)
    flat = maker.node("Reshape", pooled, maker.constant(np.array([-1, width], np.int64)))
    return maker.model(maker.node("Gemm", flat, maker.weight(4, width), maker.weight(4), transB=1))


def quantized(seed=0, prefix="", scale=0.1, zero=120):
    """Two int8 convolutions and a sum, between a Q and a DQ."""
    maker = Maker(seed, prefix)
    begin = maker.quantize("x", zero, scale)
    first = maker.node("Relu", maker.int8_conv(begin, 16, 16, zero, scale))
    second = maker.int8_conv(maker.quantize(first, 0, scale), 16, 16, 0, scale)
    summed = maker.node(
        "Add",
        maker.dequantize(maker.quantize(second, zero, 2 * scale), zero, 2 * scale),
        maker.dequantize(begin, zero, scale),
    )
    end = maker.dequantize(maker.quantize(summed, zero, 3 * scale), zero, 3 * scale)
    return maker.model(end, ("batch", 16, 8, 8))
