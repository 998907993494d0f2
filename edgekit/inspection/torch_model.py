"""What a model of PyTorch holds."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekit.export import macs_by_module, parameter_count
from edgekit.inspection.facts import Layer, ModelFacts
from edgekit.spec import TensorSpec
from edgekit.workload import Batch, Signature


def inspect_module(model: nn.Module, example: Batch) -> ModelFacts:
    """What a model of PyTorch holds; it is called with `example`.

    Multiply-accumulates are those of the whole batch, as `edgekit.export.mac_count` counts them.
    """
    samples = max(1, len(example))
    counts = macs_by_module(model, example)
    with torch.no_grad():
        answer = example.call(model)
    inputs = tuple(_spec(name, value) for name, value in _named(model, example).items())
    leaves = {name: each for name, each in model.named_modules() if not list(each.children())}
    seen: set[int] = set()
    layers = []
    for name, module in model.named_modules():
        # A parameter of a module that has children is its own, too; shared ones are with the first.
        own = [value for value in module.parameters(recurse=False) if id(value) not in seen]
        seen.update(map(id, own))
        macs = samples * counts.get(name, 0) if name in leaves else 0
        if own or macs:
            layers.append(
                Layer(
                    name=name or type(model).__name__,
                    operator=type(module).__name__,
                    macs=macs,
                    precision=_dtype(own[0]) if own and macs else "",
                    parameters=sum(value.numel() for value in own),
                    weight_bytes=sum(value.nbytes for value in own),
                )
            )
    rest = samples * counts[""] - sum(layer.macs or 0 for layer in layers)
    if rest > 0:
        # Products in forward itself, of a function such as scaled_dot_product_attention, or of a fused module.
        layers.append(Layer(name="(between modules)", operator="forward", macs=rest, precision="float32"))
    bytes_by_type: Counter[str] = Counter()
    for value in model.parameters():
        bytes_by_type[_dtype(value)] += value.nbytes
    return ModelFacts(
        kind="torch",
        inputs=inputs,
        outputs=tuple(
            _spec(f"output {index}", value)
            for index, value in enumerate(leaf for leaf in pytree.tree_leaves(answer) if isinstance(leaf, Tensor))
        ),
        assumed={each.name: each.shape for each in inputs},
        operators=dict(Counter(type(each).__name__ for each in leaves.values()).most_common()),
        layers=tuple(layers),
        parameters=parameter_count(model),
        weight_bytes=dict(bytes_by_type.most_common()),
        producer=f"torch {torch.__version__}",
        nodes=len(leaves),
        tensors=sum(1 for _ in model.parameters()),
    )


def _named(model: nn.Module, example: Batch) -> dict[str, Tensor]:
    positional = Signature.of(model).positional
    found: dict[str, Tensor] = {}
    for index, value in enumerate(example.args):
        name = positional[index] if index < len(positional) else f"input {index}"
        leaves = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
        found.update({name if len(leaves) == 1 else f"{name}.{at}": leaf for at, leaf in enumerate(leaves)})
    return {**found, **{name: value for name, value in example.kwargs.items() if isinstance(value, Tensor)}}


def _spec(name: str, value: Tensor) -> TensorSpec:
    return TensorSpec(name=name, dtype=_dtype(value), shape=tuple(value.shape))


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
