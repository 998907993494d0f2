"""Single decisions, to be priced one by one and combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.prune.coupling import Coupling
from edgekit.prune.importance import Importance
from edgekit.prune.plan import PrunePlan, best, is_inside, make_plan
from edgekit.prune.resolution import Resolution

MOST_WIDTHS = 8
"""Of a group. MobileNetV2 has 239 on a grid of 8, and a budget of five minutes was half over when all were priced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Remove a block, narrow a group, or scale the images down.

    Args:
        subject: the block's or the group's name, or `input`.
        kept: the channels of the group that stay; else empty.
        before: the group's channels; else 0.
        resolution: the size of the images, if that is what it is about.
    """

    subject: str
    kept: tuple[int, ...]
    before: int
    resolution: Resolution | None = None

    @property
    def removes_block(self) -> bool:
        """Whether this is about a block."""
        return not self.before and self.resolution is None

    @property
    def text(self) -> str:
        """For people."""
        if self.resolution is not None:
            return str(self.resolution)
        return f"remove {self.subject}" if self.removes_block else f"{self.subject}: {self.before} -> {len(self.kept)}"


def actions(
    coupling: Coupling, importance: Importance, *, grid: int, resolutions: Sequence[Resolution] = ()
) -> list[Action]:
    """Every block that can go, widths on the grid for every group, and the resolutions.

    Of a group the least important channels go first. A wide one has more widths than anybody needs to choose from: of
    them are taken those next to each further eighth of it.
    """
    blocks = [Action(subject=f"block {block.name}", kept=(), before=0) for block in coupling.blocks]
    widths = [
        Action(subject=group.name, kept=tuple(best(importance, group.name, width)), before=len(group))
        for group in coupling.groups
        for width in spread(group.widths(grid))
    ]
    sizes = [Action(subject="input", kept=(), before=0, resolution=resolution) for resolution in resolutions]
    return [*blocks, *widths, *sizes]


def spread(widths: Sequence[int]) -> list[int]:
    """At most `MOST_WIDTHS` of them, evenly, the last one among them.

    >>> spread(range(376, 0, -8))
    [336, 288, 240, 192, 152, 104, 56, 8]
    """
    count = min(len(widths), MOST_WIDTHS)
    return [widths[round((index + 1) * len(widths) / count) - 1] for index in range(count)]


def inside(coupling: Coupling) -> dict[str, str]:
    """For each group inside a block the subject of that block: with the block gone, the group's width is no matter."""
    return {
        group.name: f"block {block.name}"
        for group in coupling.groups
        for block in coupling.blocks
        if is_inside(group, block)
    }


def combine(coupling: Coupling, chosen: Sequence[Action]) -> PrunePlan:
    """One plan out of several decisions, one for each subject at most; widths inside removed blocks are left out."""
    blocks = [action.subject.removeprefix("block ") for action in chosen if action.removes_block]
    gone = {action.subject for action in chosen if action.removes_block}
    within = inside(coupling)
    kept = {
        action.subject: action.kept for action in chosen if action.before and within.get(action.subject) not in gone
    }
    resolution = next((action.resolution for action in chosen if action.resolution is not None), None)
    return make_plan(coupling, kept, blocks, resolution)
