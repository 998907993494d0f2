"""How recurrent operators couple units: one rule for layers, one for cells.

Unit i of a layer is row i of every gate (4 in an LSTM, 3 in a GRU, 1 in a plain RNN) of both weights and both biases,
and column i of the weight that reads the layer's own state. `torch.nn` has one number of units for all layers and both
directions of a module, so unit i of all of them is one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from edgekit.prune.walk import Dim, Value, Walk

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Rows of a weight for each unit."""


def recurrent(walk: Walk, node: Node) -> list[Value]:
    """Layers: (x, states, weights, biases?, layers, dropout, training, both ways?, batch first) to (y, states).

    Without projection the states and the output [.., directions * units] have the units; with it (an LSTM's
    `proj_size`) the cell state has the units, the others have the projection's outputs.
    """
    gates = GATES[_kind(node)]
    x = walk.value(node.args[0])
    assert x is not None
    weights: Sequence[Node] = node.args[2]  # type: ignore[assignment]
    layers, directions = int(node.args[4]), 2 if node.args[7] else 1  # type: ignore[arg-type]
    size = len(weights) // (layers * directions)
    assert size * layers * directions == len(weights)
    walk.pin(x[:-1], f"{node.name} runs along it")
    cells = [weights[index : index + size] for index in range(0, len(weights), size)]
    into, units, answer = x[-1], None, None
    for layer in range(layers):
        answers = []
        for cell in cells[layer * directions : (layer + 1) * directions]:
            has_projection = size in (3, 5)
            own, out = _cell(walk, node, into, cell[: len(cell) - has_projection], gates)
            if has_projection:
                projection = walk.value(cell[-1])
                assert projection is not None
                walk.couple(projection[1], own, "the units of its layer")
                walk.couple(projection[0], out, "the state that it makes")
            else:
                walk.couple(out, own, "the units of its layer")
            units = own if units is None else walk.couple(units, own, "the units of its module")
            answer = out if answer is None else walk.couple(answer, out, "the units of its module")
            answers.append(out)
        into = np.concatenate(answers)
    hidden, cell_state = (None, None, answer), (None, None, units)
    _start(walk, node, _states(node), (answer, units))
    last = [hidden, cell_state] if gates == 4 else [hidden]
    return [(*x[:-1], into), *last]


def recurrent_cell(walk: Walk, node: Node) -> Value | list[Value]:
    """Cells: (x, state or states, weights and biases) to the next ones."""
    x = walk.value(node.args[0])
    assert x is not None
    weights = [each for each in node.args[2:] if isinstance(each, Node)]
    units, answer = _cell(walk, node, x[-1], weights, GATES[_kind(node)])
    walk.couple(answer, units, "the units of its cell")
    _start(walk, node, _states(node), (units, units))
    value: Value = (*x[:-1], units)
    return [value, value] if _kind(node) == "lstm" else value


def _kind(node: Node) -> str:
    name: str = node.target.__name__  # type: ignore[union-attr]
    return name.partition(".")[0].removesuffix("_cell")


def _states(node: Node) -> Sequence[Any]:
    states = node.args[1]
    return states if isinstance(states, list | tuple) else [states]


def _cell(walk: Walk, node: Node, into: Dim, weights: Sequence[Node], gates: int) -> tuple[np.ndarray, np.ndarray]:
    """What the units of one layer and direction are, and the columns that read their state."""
    reads, recurs, *biases = (walk.value(weight) for weight in weights)
    assert reads is not None
    assert recurs is not None
    rows, columns = reads[0], recurs[1]
    assert rows is not None
    assert columns is not None
    walk.couple(reads[1], into, f"{node.name} reads fixed features")
    walk.couple(recurs[0], rows, "the gates of its layer")
    for bias in biases:
        assert bias is not None
        walk.couple(bias[0], rows, "a bias")
    first, *others = np.split(rows, gates)
    for other in others:
        walk.atoms.join(first, other)
    return first, columns


def _start(walk: Walk, node: Node, states: Sequence[Any], units: Sequence[Dim]) -> None:
    """Couple the states that a layer starts from with its units."""
    for state, dim in zip(states, units, strict=False):
        value = walk.value(state)
        assert value is not None
        walk.pin(value[:-1], f"{node.name} has fixed layers and samples")
        # One of constants, as PyTorch makes it where none is given, is as wide as the code that makes it says.
        if value[-1] is not None or state.op == "placeholder":
            walk.couple(dim, value[-1], f"{node.name} starts from a given state")
