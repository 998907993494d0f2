"""What a quantized file says, computed operator by operator, against what ONNX Runtime's integer kernels make of it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgekit.device.session import open_session
from edgekit.device.variants import exact_config
from edgekit.errors import QuantizeError
from edgekit.quantize.graph import load
from edgekit.quantize.kernels import MOVERS, is_int8, kernels_of
from edgekit.spec import Feeds


def steps_apart(
    path: Path, feeds: Feeds, *, target: str = "any", accumulated: bool = False, threads: int = 1
) -> dict[str, int]:
    """By how many quantization steps each 8-bit value of a file differs between simulation and kernels, at most.

    The simulation is the file as it is written: optimizations off, so that every operator runs in fp32 between its
    DequantizeLinear and QuantizeLinear nodes. The other side is the file as it runs on this machine's CPU:
    optimizations on, so that those nodes are fused into integer kernels. Rounding at a tie makes one step. More means
    that a kernel computes something else than the file says, as it does with 8-bit weights where pairs of products
    saturate (x86 without VNNI).

    Args:
        path: a file with QuantizeLinear nodes. One without any (dynamic int8, fp16, weights only) gives an empty dict.
        feeds: one batch of inputs; all its 8-bit values are held in memory, twice.
        target: the kind of CPU that the file is for: kernels compute as they do there, as far as ONNX Runtime can be
            told to; `any` asks what they do here.
        accumulated: both sides run from the inputs on, so that differences add up along the network: a rounded tie in
            an early layer moves whatever comes after it. By default every kernel is given the integers of the
            simulation, and answers for itself alone.
        threads: intra-op threads of ONNX Runtime.

    Returns:
        For the output of each QuantizeLinear node the largest absolute difference of its integers.

    Raises:
        QuantizeError: there is no such file, it is no ONNX, or reading its values out changes which kernels fuse.
    """
    model = load(path)
    quantizers = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    if not quantizers:
        return {}
    signed = [_kind(node) == ir.DataType.INT8 for node in quantizers]
    dtype = "int8" if sum(signed) > len(signed) / 2 else "uint8"
    values = _expose(model, quantizers)
    with tempfile.TemporaryDirectory(prefix="edgekit-simulation-") as folder:
        file = Path(folder) / "exposed.onnx"
        ir.save(model, file)
        simulated = _run(file, values, feeds, threads=threads, optimize=False, told={})
        if not accumulated:
            feeds = {**feeds, **_cut(model, quantizers, simulated)}
            ir.save(model, file)
        _check_kernels(path, file, dtype)
        told = exact_config(target)
        integers = _run(file, values, feeds, threads=threads, optimize=True, dtype=dtype, told=told)
    return {
        value: int(np.abs(simulated[value].astype(np.int32) - integers[value].astype(np.int32)).max(initial=0))
        for value in values
    }


def _kind(quantizer: ir.Node) -> ir.DataType:
    zero = quantizer.inputs[2] if len(quantizer.inputs) > 2 else None
    return ir.DataType.UINT8 if zero is None or zero.const_value is None else zero.const_value.dtype


def _expose(model: ir.Model, quantizers: Sequence[ir.Node]) -> list[str]:
    """Make the integers behind each QuantizeLinear outputs of the graph. Fusion needs the fp32 values to be none."""
    for node in quantizers:
        value = node.outputs[0]
        if not value.is_graph_output():
            value.type = ir.TensorType(_kind(node))
            model.graph.outputs.append(value)
    return [str(node.outputs[0].name) for node in quantizers]


def _cut(model: ir.Model, quantizers: Sequence[ir.Node], simulated: Mapping[str, np.ndarray]) -> Feeds:
    """Let the readers of each quantized value read an input of the graph instead; what to feed those inputs with."""
    given = {}
    for node in quantizers:
        value = node.outputs[0]
        array = simulated[str(value.name)]
        entry = ir.Value(
            name=f"{value.name}_given",
            type=ir.TensorType(_kind(node)),
            # The batch stays open as it is in the file.
            shape=ir.Shape([None, *array.shape[1:]] if array.ndim else []),
        )
        model.graph.inputs.append(entry)
        for use in tuple(value.uses()):
            use.node.replace_input_with(use.idx, entry)
        given[str(entry.name)] = array
    return given


def _run(
    file: Path,
    values: Sequence[str],
    feeds: Feeds,
    *,
    threads: int,
    optimize: bool,
    dtype: str = "uint8",
    told: Mapping[str, str],
) -> dict[str, np.ndarray]:
    config = {"session.qdqisint8allowed": "1"} if dtype == "int8" else told
    session = open_session(file, threads=threads, optimize=optimize, config=config)
    known = {tensor.name for tensor in session.get_inputs()}
    arrays = session.run(list(values), {name: array for name, array in feeds.items() if name in known})
    return dict(zip(values, arrays, strict=True))


def _check_kernels(path: Path, exposed: Path, dtype: str) -> None:
    """Operators that only move integers may differ: an output in the layout of the file asks for a Transpose."""
    of_file, of_exposed = (
        Counter(node.op_type for node in kernels_of(file, dtype).nodes if is_int8(node) and node.op_type not in MOVERS)
        for file in (path, exposed)
    )
    if of_file != of_exposed:
        other = sorted({*(of_file - of_exposed), *(of_exposed - of_file)})
        raise QuantizeError(
            f"with its 8-bit values as outputs it runs other kernels: {', '.join(other)}",
            where=str(path),
            rule="what is compared is what runs",
        )
