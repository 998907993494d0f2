"""Single decisions, to be priced one by one and combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.prune.coupling import Coupling
from edgekit.prune.importance import Importance
from edgekit.prune.plan import PrunePlan, best, is_inside, make_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Remove a block, or narrow a group.

    Args:
        subject: the block's or the group's name.
        kept: the channels of the group that stay; empty for a block.
        before: the group's channels; 0 for a block.
    """

    subject: str
    kept: tuple[int, ...]
    before: int

    @property
    def removes_block(self) -> bool:
        """Whether this is about a block."""
        return not self.before

    @property
    def text(self) -> str:
        """For people."""
        return f"remove {self.subject}" if self.removes_block else f"{self.subject}: {self.before} -> {len(self.kept)}"


def actions(coupling: Coupling, importance: Importance, *, grid: int) -> list[Action]:
    """Every block that can go, and every width on the grid for every group, the least important channels first."""
    blocks = [Action(subject=f"block {block.name}", kept=(), before=0) for block in coupling.blocks]
    widths = [
        Action(subject=group.name, kept=tuple(best(importance, group.name, width)), before=len(group))
        for group in coupling.groups
        for width in group.widths(grid)
    ]
    return [*blocks, *widths]


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
        action.subject: action.kept
        for action in chosen
        if not action.removes_block and within.get(action.subject) not in gone
    }
    return make_plan(coupling, kept, blocks)
