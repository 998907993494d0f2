"""What the exporter lacks: a translation of vanilla recurrent layers, which it would write out step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnxscript import opset18

op: Any = opset18


def _translation(activation: str) -> Callable[..., Any]:
    def rnn(  # noqa: PLR0917 - PyTorch's operator gives them so
        x: Any,
        start: Any,
        weights: Sequence[Any],
        has_biases: bool,  # noqa: FBT001
        layers: int,
        dropout: float,
        train: bool,  # noqa: FBT001
        bidirectional: bool,  # noqa: FBT001
        batch_first: bool,  # noqa: FBT001
    ) -> Any:
        """The sequence and the last states, with an operator `RNN` for each layer."""
        del dropout, train  # Networks are exported in evaluation.
        directions, each = 2 if bidirectional else 1, 4 if has_biases else 2
        values, last = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x, []
        for layer in range(layers):
            first = layer * directions
            own = [weights[(first + way) * each : (first + way + 1) * each] for way in range(directions)]
            values, state = op.RNN(
                values,
                _stacked([way[0] for way in own]),
                _stacked([way[1] for way in own]),
                _stacked([op.Concat(way[2], way[3], axis=0) for way in own]) if has_biases else None,
                None,
                op.Slice(start, [first], [first + directions], [0]),
                activations=[activation] * directions,
                direction="bidirectional" if bidirectional else "forward",
                hidden_size=int(weights[1].shape[-1]),
            )
            # [time, directions, samples, units] to what the next layer reads.
            values = (
                op.Reshape(op.Transpose(values, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1]))
                if bidirectional
                else op.Squeeze(values, [1])
            )
            last.append(state)
        sequence = op.Transpose(values, perm=[1, 0, 2]) if batch_first else values
        return sequence, last[0] if layers == 1 else op.Concat(*last, axis=0)

    return rnn


def _stacked(parts: Sequence[Any]) -> Any:
    """Those of all directions, behind each other."""
    wide = [op.Unsqueeze(part, [0]) for part in parts]
    return wide[0] if len(wide) == 1 else op.Concat(*wide, axis=0)


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.rnn_tanh.input: _translation("Tanh"),
    torch.ops.aten.rnn_relu.input: _translation("Relu"),
}
"""By PyTorch's operators, for `torch.onnx.export`."""
