"""A pruning plan: which channels and blocks go. Data that prints, saves, compares and replays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np

from edgekit.errors import PruneError
from edgekit.prune.blocks import ResidualBlock
from edgekit.prune.coupling import Block, ChannelGroup, Coupling, removed_slices
from edgekit.prune.importance import Importance
from edgekit.prune.recurrent_layers import RecurrentLayer
from edgekit.prune.resolution import Resolution

VERSION = 3
READABLE = (1, 2, 3)
"""Plans of version 1 know no resolution, those before version 3 no normalizations that lose channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """One group's widths before and after, and the channels that stay (by their index in the group)."""

    group: str
    before: int
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What to remove from a model, complete in itself: it can be applied without another analysis.

    Args:
        fingerprint: of the model's parameter names and shapes; a plan fits no other model.
        narrowings: decisions about channel groups, for people.
        slices: the same for the surgery: for each tensor and dimension the indexes that go.
        blocks: residual branches and recurrent layers that go.
        counts: for each of the user's modules the attributes that count channels, and what they become.
        resolution: what its images are scaled to; None leaves them as they come.
        norms: modules that normalize over channels some of which go, with the dimension of their input that has those.
    """

    fingerprint: str
    narrowings: tuple[Narrowing, ...]
    slices: Mapping[str, Mapping[int, tuple[int, ...]]]
    blocks: tuple[Block, ...]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    resolution: Resolution | None = None
    norms: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [f"{n.group}: {n.before} -> {len(n.kept)} channels" for n in self.narrowings]
        stays = {ResidualBlock: "its shortcut stays", RecurrentLayer: "its input goes on"}
        rows += [f"{block.name}: removed, {stays[type(block)]}" for block in self.blocks]
        rows += [] if self.resolution is None else [str(self.resolution)]
        return "\n".join(rows) or "nothing to remove"

    def includes(self, other: Self) -> bool:
        """Whether it removes all that another plan for the same model removes, so that it can go on from there."""
        if other.resolution not in (None, self.resolution):
            return False
        return {block.name for block in other.blocks} <= {block.name for block in self.blocks} and all(
            set(indexes) <= set(self.slices.get(name, {}).get(axis, ()))
            for name, axes in other.slices.items()
            if not any(block.has(name.rpartition(".")[0]) for block in self.blocks)
            for axis, indexes in axes.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "narrowings": [{"group": n.group, "before": n.before, "kept": list(n.kept)} for n in self.narrowings],
            "slices": {
                name: {str(axis): list(indexes) for axis, indexes in axes.items()} for name, axes in self.slices.items()
            },
            "blocks": [
                {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(block).items()}
                for block in self.blocks
            ],
            "counts": {module: dict(attributes) for module, attributes in self.counts.items()},
            "resolution": None if self.resolution is None else asdict(self.resolution),
            "norms": dict(self.norms),
        }

    @classmethod
    def from_dict(cls, data: Any, where: str = "plan") -> Self:
        """Read what `to_dict` wrote.

        Raises:
            PruneError: it is of another version, or no plan.
        """
        version = data.get("version") if isinstance(data, dict) else None
        if version not in READABLE:
            raise PruneError(
                f"version {version!r}",
                where=where,
                rule=f"a plan of version {VERSION} or before",
                way_out="prune again",
            )
        try:
            return cls(
                fingerprint=str(data["fingerprint"]),
                narrowings=tuple(
                    Narrowing(group=str(n["group"]), before=int(n["before"]), kept=tuple(map(int, n["kept"])))
                    for n in data["narrowings"]
                ),
                slices={
                    str(name): {int(axis): tuple(map(int, indexes)) for axis, indexes in axes.items()}
                    for name, axes in data["slices"].items()
                },
                blocks=tuple(_block(entry) for entry in data["blocks"]),
                counts={
                    str(module): {str(name): int(value) for name, value in attributes.items()}
                    for module, attributes in data.get("counts", {}).items()
                },
                resolution=_resolution(data.get("resolution")),
                norms={str(module): int(axis) for module, axis in data.get("norms", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PruneError(
                f"{type(error).__name__}: {error}",
                where=where,
                rule="what PrunePlan.to_dict writes",
                way_out="prune again",
            ) from error


def _resolution(entry: Any) -> Resolution | None:
    if entry is None:
        return None
    (rows, columns), (height, width) = entry["before"], entry["after"]
    return Resolution(leaf=int(entry["leaf"]), before=(int(rows), int(columns)), after=(int(height), int(width)))


def _block(entry: Any) -> Block:
    if "layer" in entry:
        return RecurrentLayer(name=str(entry["name"]), module=str(entry["module"]), layer=int(entry["layer"]))
    return ResidualBlock(
        name=str(entry["name"]),
        last=str(entry["last"]),
        modules=tuple(map(str, entry["modules"])),
        shape=tuple(map(int, entry["shape"])),
        leading=int(entry.get("leading", 1)),
        whole=str(entry.get("whole", "")),
        further=int(entry.get("further", 0)),
    )


def fingerprint(sizes: Mapping[str, Sequence[int]]) -> str:
    """A digest of tensor names and shapes."""
    listing = json.dumps(sorted((name, list(size)) for name, size in sizes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def make_plan(
    coupling: Coupling,
    kept: Mapping[str, Sequence[int]] | None = None,
    blocks: Sequence[str] = (),
    resolution: Resolution | None = None,
) -> PrunePlan:
    """The plan that keeps the given channels of the given groups, all of the others, and drops the given blocks.

    Args:
        coupling: of the model.
        kept: for each group to be narrowed the indexes that stay.
        blocks: names of blocks to remove.
        resolution: what images are scaled to.

    Raises:
        PruneError: a group or a block does not exist, or a group would be left empty.
    """
    gone, narrowings = [], []
    counts: dict[str, dict[str, int]] = {}
    for name, indexes in (kept or {}).items():
        group = coupling.group(name)
        stays = sorted(set(indexes))
        if not stays or stays[0] < 0 or stays[-1] >= len(group):
            raise PruneError(f"keeps {stays}", where=name, rule=f"at least one of channels 0 to {len(group) - 1}")
        if len(stays) == len(group):
            continue
        narrowings.append(Narrowing(group=name, before=len(group), kept=tuple(stays)))
        gone += [channel for index, channel in enumerate(group.channels) if index not in set(stays)]
        for count in group.counts:
            counts.setdefault(count.module, {})[count.attribute] = count.each * len(stays)
    slices = {
        name: {axis: tuple(indexes.tolist()) for axis, indexes in axes.items()}
        for name, axes in removed_slices(gone).items()
    }
    return PrunePlan(
        fingerprint=fingerprint(coupling.sizes),
        narrowings=tuple(narrowings),
        slices=slices,
        blocks=tuple(coupling.block(name) for name in blocks),
        counts=counts,
        resolution=resolution,
        norms={
            module: axis
            for module, axis in coupling.norms.items()
            if any(name.rpartition(".")[0] == module for name in slices)
        },
    )


def plan(
    coupling: Coupling,
    importance: Importance,
    *,
    keep: float | Mapping[str, int] = 0.5,
    scope: Literal["uniform", "global"] = "uniform",
    grid: int = 8,
    drop_blocks: Sequence[str] = (),
    resolution: Resolution | None = None,
) -> PrunePlan:
    """Choose channels by importance, on the grid.

    Args:
        coupling: of the model.
        importance: of its channels.
        keep: share of the channels that stays, or the width of each named group.
        scope: `uniform` keeps the share in each group, `global` over all groups together.
        grid: widths stay on multiples of it where they were on one; no group falls below it.
        drop_blocks: residual blocks and recurrent layers to remove; groups inside them are left alone.
        resolution: what images are scaled to.

    Raises:
        PruneError: a value is out of range, or a name unknown.
    """
    if grid < 1:
        raise PruneError(f"grid is {grid}", where="--grid", rule="a positive number of channels", way_out="try 8 or 16")
    blocks = [coupling.block(name) for name in drop_blocks]
    open_groups = [group for group in coupling.groups if not any(is_inside(group, block) for block in blocks)]
    if isinstance(keep, Mapping):
        widths = {coupling.group(name).name: int(width) for name, width in keep.items()}
        for name, width in widths.items():
            if not 1 <= width <= len(coupling.group(name)):
                raise PruneError(f"width {width}", where=name, rule=f"1 to {len(coupling.group(name))}")
    elif not 0 < keep <= 1:
        raise PruneError(f"keep is {keep}", where="--keep", rule="a share above 0 and at most 1", way_out="try 0.5")
    elif scope == "uniform":
        widths = {group.name: _on_grid(group, keep * len(group), grid) for group in open_groups}
    elif scope == "global":
        widths = _global_widths(open_groups, importance, keep, grid)
    else:
        raise PruneError(f"unknown {scope!r}", where="--scope", rule="uniform or global")
    kept = {name: best(importance, name, width) for name, width in widths.items()}
    return make_plan(coupling, kept, drop_blocks, resolution)


def best(importance: Importance, group: str, width: int) -> list[int]:
    """The `width` most important channels of a group, sorted by index."""
    order = np.argsort(-importance.channels[group], kind="stable")
    return sorted(order[:width].tolist())


def is_inside(group: ChannelGroup, block: Block) -> bool:
    """Whether every tensor of a group belongs to a block's modules."""
    return all(block.has(name.rpartition(".")[0]) for name, _ in group.tensors)


def _on_grid(group: ChannelGroup, wanted: float, grid: int) -> int:
    options = [len(group), *group.widths(grid)]
    return min(options, key=lambda width: (abs(width - wanted), width))


def _global_widths(groups: Sequence[ChannelGroup], importance: Importance, keep: float, grid: int) -> dict[str, int]:
    widths = {group.name: len(group) for group in groups}
    to_go = (1 - keep) * sum(widths.values())
    options = {group.name: group.widths(grid) for group in groups}
    ranked = {group.name: np.sort(importance.channels[group.name]) for group in groups}
    # Grid units of each group, the least important first; a unit's price is the mean importance of its channels.
    while True:
        prices = {}
        for group in groups:
            if options[group.name]:
                gone, next_gone = len(group) - widths[group.name], len(group) - options[group.name][0]
                prices[group.name] = float(ranked[group.name][gone:next_gone].mean())
        if not prices:
            return widths
        cheapest = min(prices, key=lambda name: prices[name])
        unit = widths[cheapest] - options[cheapest][0]
        if to_go < unit / 2:
            return widths
        widths[cheapest] = options[cheapest].pop(0)
        to_go -= unit
