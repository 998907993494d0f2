"""Numbers of channels that the user's own modules keep as attributes: heads of an attention, a width.

Nothing tells from the outside what an attribute is for. So a number that fits is a guess, and the proof judges it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from edgekit.prune.coupling import ChannelGroup

MOST = 48
"""Guesses for one group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """An attribute that counts a group's channels.

    Args:
        module: the name of the module that has it.
        attribute: its name.
        each: by how much it grows with each channel: 1, or the size of a head.
    """

    module: str
    attribute: str
    each: int


def candidates(model: nn.Module, group: ChannelGroup) -> tuple[Count, ...]:
    """The attributes that may count a group's channels or their indexes.

    They are whole numbers that fit, of the modules that have the group's tensors or a layer with them. Layers of
    `torch.nn` are no such modules: what their numbers mean is known (`resize`).
    """
    owners = {name.rpartition(".")[0] for name, _ in group.tensors}
    places = sorted(owners | {owner.rpartition(".")[0] for owner in owners})
    widths = {len(indexes) for indexes in group.channels[0].values()}
    # A head of keys that serves three heads of queries is three times as narrow: those are counted, too.
    sizes = sorted({1, *widths, *(wide // narrow for wide in widths for narrow in widths if wide % narrow == 0)})
    modules = dict(model.named_modules())
    return tuple(
        Count(module=place, attribute=attribute, each=each)
        for place in places
        if not type(module := modules[place]).__module__.startswith("torch.nn.")
        for attribute, value in vars(module).items()
        if type(value) is int and not attribute.startswith("_")
        for each in sizes
        if value == each * len(group)
    )


def guesses(found: tuple[Count, ...]) -> Iterator[tuple[Count, ...]]:
    """What may be meant: all of them, none, all of one size, all of a few attributes, and any few; each once."""
    sizes = sorted({count.each for count in found})
    some = [tuple(count for count in found if count.each == each) for each in sizes]
    attributes = list(dict.fromkeys(count.attribute for count in found))
    # The layers of a stack have the same attributes, which then mean the same in all of them.
    meant = [chosen for size in (1, 2) for chosen in combinations(attributes, size)]
    alike = [tuple(count for count in found if count.attribute in chosen) for chosen in meant]
    few = (chosen for size in range(1, len(found)) for chosen in combinations(found, size))
    yield from list(dict.fromkeys([found, (), *some, *alike, *islice(few, MOST)]))[:MOST]
