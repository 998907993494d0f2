"""How trainings of a search compute: measured for one network, taken over by those made of the same kinds of layers."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from edgekit.export import mac_count
from edgekit.training import Choice
from edgekit.workload import Batch


class Computing:
    """Precision, memory layout, threads and loading processes of the trainings that this process has done.

    A training finds them by a few steps of each (`edgekit.training.fit`), which is a good part of a short one. What is
    fastest depends on the kinds of layers far more than on their widths and number.

    Args:
        example: a batch, to count a network's work with.

    >>> import torch
    >>> known = Computing(Batch((torch.ones(2, 3),), {}, None))
    >>> known.keep(nn.Linear(3, 2), Choice(precision="fp32", channels_last=False, workers=0, step_s=0.25))
    >>> known.like(nn.Linear(3, 8)).step_s
    1.0
    >>> known.like(nn.Sequential(nn.Linear(3, 2), nn.ReLU())) is None
    True
    """

    def __init__(self, example: Batch) -> None:
        self._example = example
        self._known: dict[frozenset[str], tuple[Choice, int]] = {}

    def like(self, network: nn.Module) -> Choice | None:
        """What is known for the network, with the seconds that its step should take by its share of work; or None."""
        if (known := self._known.get(_kinds(network))) is None:
            return None
        choice, macs = known
        return replace(choice, step_s=choice.step_s * self._macs(network) / macs)

    def keep(self, network: nn.Module, choice: Choice) -> None:
        """Keep what a training of the network has found, unless something is known for such networks."""
        kinds = _kinds(network)
        if kinds not in self._known:
            self._known[kinds] = choice, self._macs(network)

    def _macs(self, network: nn.Module) -> int:
        return max(mac_count(network, self._example), 1)


def _kinds(network: nn.Module) -> frozenset[str]:
    """What a network is made of: the types of its layers, those with a kernel or in groups told from those without."""
    return frozenset(_kind(module) for module in network.modules() if not list(module.children()))


def _kind(module: nn.Module) -> str:
    name = type(module).__name__
    if isinstance(module, nn.modules.conv._ConvNd):  # noqa: SLF001 - the class that all convolutions have in common
        return f"{name} {'pointwise' if set(module.kernel_size) == {1} else 'spatial'} {module.groups > 1}"
    return name
