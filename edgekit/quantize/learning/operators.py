"""What ONNX operators compute, in torch, so that gradients pass through a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor

Attributes = Mapping[str, Any]
Operator = Callable[[Attributes, Sequence[Any]], Any]
"""Attributes and inputs (None where one is left out) to an output, or a tuple of them."""


def _integers(value: Any) -> list[int]:
    return [int(number) for number in (value.tolist() if isinstance(value, Tensor) else value)]


def _padded(a: Attributes, x: Tensor, rank: int, value: float = 0.0) -> tuple[Tensor, list[int]]:
    """The image, padded already where the two sides differ, and what is left to pad on both."""
    pads = list(a.get("pads", [0] * 2 * rank))
    if pads[:rank] == pads[rank:]:
        return x, pads[:rank]
    both = [size for axis in reversed(range(rank)) for size in (pads[axis], pads[axis + rank])]
    return F.pad(x, both, value=value), [0] * rank


def _conv(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, weight, bias = [*inputs, None][:3]
    rank = weight.ndim - 2
    x, padding = _padded(a, x, rank)
    run: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    ones = [1] * rank
    return run(x, weight, bias, a.get("strides", ones), padding, a.get("dilations", ones), a.get("group", 1))


def _conv_transpose(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, weight, bias = [*inputs, None][:3]
    rank = weight.ndim - 2
    pads, ones = list(a.get("pads", [0] * 2 * rank)), [1] * rank
    run: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    more = a.get("output_padding", [0] * rank)
    return run(x, weight, bias, a.get("strides", ones), pads[:rank], more, a.get("group", 1), a.get("dilations", ones))


def _gemm(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, weight, bias = [*inputs, None][:3]
    x, weight = (x.mT if a.get("transA") else x), (weight.mT if a.get("transB") else weight)
    product: Tensor = a.get("alpha", 1.0) * (x @ weight)
    return product if bias is None else product + a.get("beta", 1.0) * bias


def _max_pool(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    kernel = a["kernel_shape"]
    rank = len(kernel)
    x, padding = _padded(a, inputs[0], rank, -math.inf)
    run: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    ones = [1] * rank
    return run(x, kernel, a.get("strides", ones), padding, a.get("dilations", ones), bool(a.get("ceil_mode", 0)))


def _average_pool(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    kernel = a["kernel_shape"]
    rank = len(kernel)
    padding = list(a.get("pads", [0] * 2 * rank))
    if padding[:rank] != padding[rank:]:
        raise NotImplementedError("AveragePool with different padding on both sides")
    run: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    strides, ceil = a.get("strides", [1] * rank), bool(a.get("ceil_mode", 0))
    return run(inputs[0], kernel, strides, padding[:rank], ceil, bool(a.get("count_include_pad", 0)))


def _global_average(_: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


def _reduce(run: Callable[..., Tensor]) -> Operator:
    def operator(a: Attributes, inputs: Sequence[Any]) -> Tensor:
        x: Tensor = inputs[0]
        given = inputs[1] if len(inputs) > 1 else a.get("axes")
        axes = tuple(range(x.ndim)) if given is None else tuple(_integers(given))
        return run(x, axes, bool(a.get("keepdims", 1)))

    return operator


def _clip(_: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, low, high = [*inputs, None, None][:3]
    return torch.clamp(x, min=low, max=high)


def _layer_norm(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, scale, bias = [*inputs, None][:3]
    shape = x.shape[a.get("axis", -1) % x.ndim :]
    return F.layer_norm(x, list(shape), scale, bias, a.get("epsilon", 1e-5))


def _batch_norm(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, scale, bias, mean, variance = inputs
    return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=a.get("epsilon", 1e-5))


def _instance_norm(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    return F.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=a.get("epsilon", 1e-5))


def _reshape(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, wanted = inputs[0], _integers(inputs[1])
    if not a.get("allowzero", 0):
        wanted = [x.shape[index] if size == 0 else size for index, size in enumerate(wanted)]
    done: Tensor = x.reshape(wanted)
    return done


def _flatten(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    axis = a.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _slice(_: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    starts, ends = _integers(inputs[1]), _integers(inputs[2])
    axes = _integers(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
    steps = _integers(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    index: list[slice] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            raise NotImplementedError("Slice with a negative step")
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _split(a: Attributes, inputs: Sequence[Any]) -> tuple[Tensor, ...]:
    x, axis = inputs[0], a.get("axis", 0)
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(torch.split(x, _integers(inputs[1]), axis))
    return tuple(torch.split(x, math.ceil(x.shape[axis] / a["num_outputs"]), axis))


def _squeeze(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    given = inputs[1] if len(inputs) > 1 else a.get("axes")
    x: Tensor = inputs[0]
    return x.squeeze() if given is None else x.squeeze(tuple(_integers(given)))


def _unsqueeze(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    axes = _integers(inputs[1] if len(inputs) > 1 else a["axes"])
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _gather(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, indices = inputs
    axis = a.get("axis", 0) % x.ndim
    wrapped = torch.where(indices < 0, indices + x.shape[axis], indices)
    picked: Tensor = x.index_select(axis, wrapped.reshape(-1))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _resize(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, _, scales, sizes = [*inputs, None, None, None][:4]
    mode = a.get("mode", "nearest")
    wanted = _integers(sizes)[2:] if sizes is not None and sizes.numel() else None
    if wanted is None:
        wanted = [int(size * scale) for size, scale in zip(x.shape[2:], scales.tolist()[2:], strict=True)]
    whole = all(new % old == 0 for new, old in zip(wanted, x.shape[2:], strict=True))
    if mode == "nearest" and whole:
        return F.interpolate(x, wanted, mode="nearest")
    if mode == "linear" and x.ndim == 4 and a.get("coordinate_transformation_mode", "half_pixel") == "half_pixel":
        return F.interpolate(x, wanted, mode="bilinear", align_corners=False)
    raise NotImplementedError(f"Resize with mode {mode} to {wanted}")


def _pad(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, pads, value, axes = [*inputs, None, None][:4]
    if a.get("mode", "constant") != "constant":
        raise NotImplementedError(f"Pad with mode {a['mode']}")
    sizes = _integers(pads)
    half = len(sizes) // 2
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in _integers(axes)]
    both = {axis: (sizes[index], sizes[index + half]) for index, axis in enumerate(chosen)}
    flat = [size for axis in reversed(range(x.ndim)) for size in both.get(axis, (0, 0))]
    return F.pad(x, flat, value=0.0 if value is None else float(value))


def _depth_to_space(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, block = inputs[0], a["blocksize"]
    if a.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, channels, height, width = x.shape
    parts = x.reshape(n, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    done: Tensor = parts.reshape(n, channels // block**2, height * block, width * block)
    return done


def _cast(a: Attributes, inputs: Sequence[Any]) -> Tensor:
    kinds = {ir.DataType.FLOAT: torch.float32, ir.DataType.INT64: torch.int64, ir.DataType.INT32: torch.int32}
    kinds[ir.DataType.BOOL] = torch.bool
    done: Tensor = inputs[0].to(kinds[ir.DataType(a["to"])])
    return done


def _expand(_: Attributes, inputs: Sequence[Any]) -> Tensor:
    # Broadcasting both ways, as ONNX has it.
    x: Tensor = inputs[0]
    return x * torch.ones(_integers(inputs[1]), dtype=x.dtype)


def _elementwise(run: Callable[..., Any]) -> Operator:
    return lambda _, inputs: run(*inputs)


OPERATORS: dict[str, Operator] = {
    "Abs": _elementwise(torch.abs),
    "Add": _elementwise(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda a, inputs: torch.cat(list(inputs), a["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": _elementwise(torch.div),
    "Elu": lambda a, inputs: F.elu(inputs[0], a.get("alpha", 1.0)),
    "Equal": _elementwise(torch.eq),
    "Erf": _elementwise(torch.erf),
    "Exp": _elementwise(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda a, inputs: F.gelu(inputs[0], approximate=a.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "HardSigmoid": lambda a, inputs: torch.clamp(a.get("alpha", 0.2) * inputs[0] + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda _, inputs: inputs[0] * torch.clamp(inputs[0] / 6 + 0.5, 0, 1),
    "Identity": lambda _, inputs: inputs[0],
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda a, inputs: F.leaky_relu(inputs[0], a.get("alpha", 0.01)),
    "MatMul": _elementwise(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _elementwise(torch.mul),
    "Neg": _elementwise(torch.neg),
    "PRelu": lambda _, inputs: torch.where(inputs[0] < 0, inputs[0] * inputs[1], inputs[0]),
    "Pad": _pad,
    "Pow": _elementwise(torch.pow),
    "Reciprocal": _elementwise(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _elementwise(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda a, inputs: torch.tensor(inputs[0].shape[a.get("start", 0) : a.get("end")]),
    "Sigmoid": _elementwise(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda a, inputs: torch.softmax(inputs[0], a.get("axis", -1)),
    "Split": _split,
    "Sqrt": _elementwise(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(torch.sub),
    "Tanh": _elementwise(torch.tanh),
    "Tile": lambda _, inputs: inputs[0].tile(_integers(inputs[1])),
    "Transpose": lambda a, inputs: inputs[0].permute(a.get("perm", list(range(inputs[0].ndim))[::-1])),
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(torch.where),
}
"""By the name that ONNX gives them."""
