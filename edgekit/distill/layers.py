"""Layers of a student beside those of its teacher: which belong together, and how far their outputs are apart."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn

from edgekit.distill.tracing import Call, traced
from edgekit.errors import TrainingError
from edgekit.tasks import outputs_of
from edgekit.workload import Batch, isolated

PROJECTIONS = "edgekit_projections"
"""The student's own module of this name holds the projections while it is trained."""
SHARES = (1 / 3, 2 / 3, 1.0)
"""Relative depths that are compared where all outputs have one spatial size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A layer of the student and the one of the teacher that it is compared with.

    Args:
        student: name of a module.
        teacher: likewise.
        projected: whether a learned 1x1 projection brings the student's width to the teacher's where they differ;
            otherwise both outputs have one shape.
    """

    student: str
    teacher: str
    projected: bool


def matched(student: nn.Module, teacher: nn.Module, example: Batch) -> tuple[Match, ...]:
    """Layers that belong together, by relative depth and spatial size.

    Of each spatial size that both networks have, the last output of that size is compared with the other's last. Where
    they share no size, the last outputs of each size are paired by relative depth; where there is one size only, as in
    Transformers, the outputs at a third, two thirds and the end.

    Raises:
        TrainingError: one of them has no module that gives maps [n, channels, h, w] or sequences [n, t, channels].
    """
    ours, theirs = _ends(student, example, "student"), _ends(teacher, example, "teacher")
    if len(ours) == len(theirs) == 1:
        pairs = list(zip(_along(next(iter(ours.values()))), _along(next(iter(theirs.values()))), strict=True))
    else:
        pairs = [(ours[size][-1], theirs[size][-1]) for size in ours if size in theirs]
        pairs = pairs or _by_depth([calls[-1] for calls in ours.values()], [calls[-1] for calls in theirs.values()])
    names = dict.fromkeys((a.name, b.name) for a, b in pairs)
    return tuple(Match(student=a, teacher=b, projected=True) for a, b in names)


def named(layers: Sequence[str], student: nn.Module, teacher: nn.Module) -> tuple[Match, ...]:
    """`NAME` for a layer that both have in one shape, `STUDENT=TEACHER` for two that may differ.

    Raises:
        TrainingError: a network has no such module.
    """
    found = []
    for text in layers:
        first, separator, second = text.partition("=")
        match = Match(student=first, teacher=second or first, projected=bool(separator))
        for role, module, name in (("student", student, match.student), ("teacher", teacher, match.teacher)):
            if name not in dict(module.named_modules()):
                raise TrainingError(
                    f"the {role} has no module {name!r}",
                    where="feature_layers",
                    rule="names from named_modules() of student and teacher",
                )
        found.append(match)
    return tuple(found)


def with_projections(
    student: nn.Module, teacher: nn.Module, matches: Sequence[Match], example: Batch, *, seed: int
) -> nn.Module:
    """A copy of `student` with a projection for each match, to be trained with it; `without_projections` takes it off.

    A. Romero et al., *FitNets* (2015), section 2.2: a convolution brings the student's hint to the teacher's width; it
    is 1x1 here. Where widths agree there is none.
    """
    ours = {call.name: call.output for call in traced(copy.deepcopy(student).eval(), example)[0]}
    theirs = {call.name: call.output for call in traced(copy.deepcopy(teacher).eval(), example)[0]}
    made: list[nn.Module] = []
    with isolated(seed):
        for match in matches:
            a, b = ours[match.student], theirs[match.teacher]
            assert a is not None
            assert b is not None
            made.append(_projection(a, b, match) if match.projected else nn.Identity())
    twin = copy.deepcopy(student)
    twin.add_module(PROJECTIONS, nn.ModuleList(made))
    return twin


def without_projections(student: nn.Module) -> nn.Module:
    """`student` itself as it was before `with_projections`."""
    if hasattr(student, PROJECTIONS):
        delattr(student, PROJECTIONS)
    return student


@contextmanager
def listening(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The first output of each named module, once the model has been called."""
    heard: dict[str, Tensor] = {}
    if not layers:
        yield heard
        return
    modules = dict(_bare(model).named_modules())

    def listen(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            heard[name] = outputs_of(output)[0]

        return hook

    handles = [modules[name].register_forward_hook(listen(name)) for name in layers]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def feature_loss(
    student: nn.Module, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], matches: Sequence[Match]
) -> Tensor:
    """The mean squared distance of the L2-normalized outputs, the mean over matches; the student's are projected."""
    projections = getattr(_bare(student), PROJECTIONS, None)
    distances = []
    for index, match in enumerate(matches):
        a, b = ours[match.student], theirs[match.teacher]
        if match.projected:
            assert projections is not None
            a, b = _one_size(projections[index](a), b)
        elif a.shape != b.shape:
            raise TrainingError(
                f"{match.student!r} gives {list(a.shape)} in the student and {list(b.shape)} in the teacher",
                where="feature_layers",
                rule="layers whose outputs have one shape in both",
                way_out="name layers that pruning left whole, such as the ends of stages, or STUDENT=TEACHER for two "
                "that differ",
            )
        distances.append(_distance(a, b))
    return torch.stack(distances).mean()


def attention_loss(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], matches: Sequence[Match]) -> Tensor:
    """The mean squared distance of the attention maps, the mean over matches.

    S. Zagoruyko and N. Komodakis, *Paying More Attention to Attention* (2017), equation 2, with squared distances as in
    their code: a map is the sum of the squares over channels, flattened and L2-normalized.
    """
    distances = []
    for match in matches:
        a, b = _one_size(ours[match.student], theirs[match.teacher])
        if a.ndim < 3:
            raise TrainingError(
                f"{match.student!r} gives {list(a.shape)}",
                where="attention",
                rule="maps [n, channels, h, w] or sequences [n, t, channels]",
                way_out="leave the layer out, or use the feature loss",
            )
        distances.append(_distance(attention_map(a), attention_map(b)))
    return torch.stack(distances).mean()


def attention_map(output: Tensor) -> Tensor:
    """[n, positions]: the sum of squares over channels of maps [n, channels, h, w] or sequences [n, t, channels].

    >>> attention_map(torch.tensor([[[1.0, 2.0], [0.0, 3.0]]]))
    tensor([[5., 9.]])
    """
    return output.float().square().sum(1 if output.ndim == 4 else 2).flatten(1)


def _bare(model: nn.Module) -> nn.Module:
    """The model without what Fabric wraps around it."""
    inner = getattr(model, "module", model)
    return inner if isinstance(inner, nn.Module) else model


def _distance(a: Tensor, b: Tensor) -> Tensor:
    a, b = F.normalize(a.float().flatten(1), dim=1), F.normalize(b.float().flatten(1), dim=1)
    return (a - b).square().sum(1).mean()


def _one_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both averaged to the smaller one's height and width, or to the shorter one's positions."""
    if a.ndim == 4 and a.shape[2:] != b.shape[2:]:
        size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
        return F.adaptive_avg_pool2d(a, size), F.adaptive_avg_pool2d(b, size)
    if a.ndim == 3 and a.shape[1] != b.shape[1]:
        length = min(a.shape[1], b.shape[1])
        pooled = [F.adaptive_avg_pool1d(z.transpose(1, 2), length).transpose(1, 2) for z in (a, b)]
        return pooled[0], pooled[1]
    return a, b


def _projection(a: Tensor, b: Tensor, match: Match) -> nn.Module:
    if a.ndim != b.ndim or a.ndim not in (2, 3, 4):
        raise TrainingError(
            f"{match.student!r} gives {list(a.shape)} and the teacher's {match.teacher!r} {list(b.shape)}",
            where="feature_layers",
            rule="both maps [n, channels, h, w], both sequences [n, t, channels], or both vectors",
            way_out="name other layers",
        )
    axis = 1 if a.ndim == 4 else -1
    before, after = a.shape[axis], b.shape[axis]
    if before == after:
        return nn.Identity()
    return nn.Conv2d(before, after, 1, bias=False) if a.ndim == 4 else nn.Linear(before, after, bias=False)


def _ends(model: nn.Module, example: Batch, role: str) -> dict[tuple[int, ...], list[Call]]:
    """The calls of each spatial size, sizes in the order in which they end."""
    twin = copy.deepcopy(model).eval()
    whole = {name for name, module in twin.named_modules() if next(module.children(), None) is not None}
    found: dict[tuple[int, ...], list[Call]] = {}
    for call in traced(twin, example)[0]:
        output = call.output
        if output is None or output.ndim not in (3, 4) or not output.is_floating_point():
            continue
        size = tuple(output.shape[2:]) if output.ndim == 4 else (output.shape[1],)
        if size not in ((1, 1), (1,)):
            found.setdefault(size, []).append(call)
    if not found:
        raise TrainingError(
            f"no layer of the {role} gives a map or a sequence",
            where="feature_layers",
            rule="outputs [n, channels, h, w] or [n, t, channels]",
            way_out="name layers as STUDENT=TEACHER, or leave the feature loss out",
        )
    for calls in found.values():
        # The ends of blocks say more than layers inside of them.
        blocks = [call for call in calls if call.name in whole]
        if len(blocks) >= len(SHARES):
            calls[:] = blocks
    return dict(sorted(found.items(), key=lambda entry: entry[1][-1].ended))


def _along(calls: Sequence[Call]) -> list[Call]:
    return [calls[max(0, round(share * len(calls)) - 1)] for share in SHARES]


def _by_depth(ours: Sequence[Call], theirs: Sequence[Call]) -> list[tuple[Call, Call]]:
    if len(ours) == 1:
        return [(ours[0], theirs[-1])]
    step = (len(theirs) - 1) / (len(ours) - 1)
    return [(call, theirs[round(index * step)]) for index, call in enumerate(ours)]
