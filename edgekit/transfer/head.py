"""The last layer that learns: where it is, and another one in its place."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import nn

from edgekit.distill import traced
from edgekit.errors import TrainingError, did_you_mean
from edgekit.tasks import outputs_of
from edgekit.workload import Batch, isolated

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The classifier of a network.

    Args:
        name: of the module.
        width: features that it reads.
        outputs: classes that it tells apart.
        last: whether it reads vectors, and the network's answer is what it gives, unchanged.
    """

    name: str
    width: int
    outputs: int
    last: bool

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(**data)


def find_head(model: nn.Module, example: Batch, *, name: str | None = None) -> Head:
    """The linear or convolutional layer that is called last of all modules with weights, or the one of `name`.

    Args:
        model: left as it is.
        example: a batch that it takes.
        name: of the head, where it is known.

    Raises:
        TrainingError: there is no such module, it is neither linear nor a convolution, it is not called, or the last
            one with weights is of another kind.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> find_head(net, Batch((torch.ones(2, 4),), {}, None)).name
    '2'
    """
    twin = copy.deepcopy(model).eval()
    calls, answer = traced(twin, example)
    modules = dict(twin.named_modules())
    if name is not None and name not in modules:
        fitting = [each for each, module in modules.items() if isinstance(module, KINDS)]
        raise _wrong(
            f"the network has no module {name!r}", did_you_mean(name, fitting, f"it has {', '.join(fitting[-6:])}")
        )
    weighty = [call for call in calls if next(modules[call.name].parameters(recurse=False), None) is not None]
    if not weighty:
        raise _wrong("no module with weights is called")
    called = {call.name: call for call in calls}
    found = weighty[-1].name if name is None else name
    module = modules[found]
    if not isinstance(module, KINDS):
        raise _wrong(f"the last module with weights, {found or 'the network itself'!r}, is a {type(module).__name__}")
    if found not in called:
        raise _wrong(f"{found!r} is not called")
    output, whole = called[found].output, outputs_of(answer)[0]
    assert output is not None
    unchanged = output.ndim == 2 and output.shape == whole.shape and torch.equal(output, whole)
    return Head(
        name=found,
        width=module.in_features if isinstance(module, nn.Linear) else module.in_channels,
        outputs=module.out_features if isinstance(module, nn.Linear) else module.out_channels,
        last=isinstance(module, nn.Linear) and unchanged,
    )


def with_head(model: nn.Module, head: Head, outputs: int, example: Batch | None = None, *, seed: int = 0) -> nn.Module:
    """A copy of `model` in which a new layer of the same kind, with `outputs` classes, stands in the place of its head.

    Args:
        model: left as it is.
        head: which layer.
        outputs: classes of the new one.
        example: a batch to try the new network on; without it nothing is tried.
        seed: of the new weights, which are torch's own for such a layer.

    Raises:
        TrainingError: the new network does not answer with `outputs` classes.
    """
    twin = copy.deepcopy(model)
    # A convolution has more settings than sizes; they stay as they are.
    layer: Any = twin.get_submodule(head.name)
    with isolated(seed):
        setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", outputs)
        layer.weight = nn.Parameter(layer.weight.new_empty(outputs, *layer.weight.shape[1:]))
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.new_empty(outputs))
        layer.reset_parameters()
    if example is not None:
        _try(twin, head, outputs, example)
    return twin


def _try(twin: nn.Module, head: Head, outputs: int, example: Batch) -> None:
    training = twin.training
    try:
        with torch.no_grad():
            shape = list(outputs_of(example.call(twin.eval()))[0].shape)
    except Exception as error:
        raise _wrong(
            f"with {outputs} outputs of {head.name!r} the network raises {type(error).__name__}: {error}"
        ) from error
    finally:
        twin.train(training)
    if len(shape) < 2 or shape[1] != outputs:
        raise _wrong(f"with {outputs} outputs of {head.name!r} the network still answers {shape}")


def _wrong(problem: str, near: str = "") -> TrainingError:
    return TrainingError(
        problem,
        where="head",
        rule="a Linear or convolutional module whose outputs are the classes",
        way_out=near or "name the classifier with --head, as in named_modules()",
    )
