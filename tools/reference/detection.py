r"""Detection as a user's project: an anchor-free detector finds handwritten digits pasted onto pictures.

    python tools/reference/detection.py train detector
    edgekit compress tools/reference/detection.py:detector --train tools/reference/detection.py:train_data \
        --test tools/reference/detection.py:test_data --task tools/reference/detection.py:task

The pictures are those of segments.py, with a box around the ink of each digit. The network leaves boxes as distances
from cells; thresholds and non-maximum suppression are the bundle's post-processing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from images import normalized
from networks.detector import Detector
from segments import DIGIT, INK, SIDE, PastedDigits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from training import Recipe, Run, command_line, trained

from edgekit.tasks import Task, custom, outputs_of

MOST = 3
"""Digits in a picture."""
THRESHOLD, OVERLAP, MATCH = 0.05, 0.5, 0.5
"""Of scores, of non-maximum suppression, and from which intersection over union a box counts as found."""


class Found(PastedDigits):
    """Items are (float32 [3, 32, 32], float32 [MOST, 5]): a picture; class, x1, y1, x2, y2 of each digit, or -1."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.default_generator if self.augment else torch.Generator().manual_seed(index)
        picture = self.pictures[index].permute(2, 0, 1).float()
        rows = torch.full((MOST, 5), -1.0)
        taken: list[tuple[int, int]] = []
        for _ in range(int(torch.randint(1, MOST + 1, (), generator=generator))):
            which = int(torch.randint(0, len(self.ink), (), generator=generator))
            top, left = torch.randint(0, SIDE - DIGIT + 1, (2,), generator=generator).tolist()
            colour = 255 * torch.rand(3, 1, 1, generator=generator)
            if any(abs(top - t) < 10 and abs(left - x) < 10 for t, x in taken):
                continue  # It would hide the other.
            ink = self.ink[which]
            area = picture[:, top : top + DIGIT, left : left + DIGIT]
            area += ink * (colour - area)
            down, across = torch.where(ink > INK)
            box = (left + across.min(), top + down.min(), left + across.max() + 1, top + down.max() + 1)
            rows[len(taken)] = torch.tensor([float(self.digits[which]), *map(float, box)])
            taken.append((top, left))
        return normalized(picture), rows


def centres() -> tuple[Tensor, Tensor]:
    """Centres float32 [cells, 2] (x, y) of the cells, level by level and row by row, and their strides [cells]."""
    points, strides = [], []
    for stride in Detector.STRIDES:
        side = SIDE // stride
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        points.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((side * side,), float(stride)))
    return torch.cat(points).float(), torch.cat(strides)


def objective(output: Any, target: Tensor) -> Tensor:
    """Focal loss of the classes (gamma 2, alpha 0.25) and GIoU of the boxes of cells near the centre of a digit."""
    distances, logits = (each.float() for each in outputs_of(output))
    points, strides = (each.to(target) for each in centres())
    boxes, classes = target[:, :, 1:], target[:, :, 0]
    middle, size = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]).amax(-1)
    away = (points[None, :, None] - middle[:, None]).abs().amax(-1)
    fits = torch.where(strides < 6, 1, 0)[None, :, None] == (size < 12).long()[:, None]
    near = (away < 1.0 * strides[None, :, None]) & (classes >= 0)[:, None] & fits
    which = torch.where(near, away, torch.inf).argmin(-1)
    positive = near.any(-1)
    wanted = torch.zeros_like(logits)
    chosen = torch.gather(classes, 1, which).long().clamp_min(0)
    wanted.scatter_(2, chosen[..., None], positive[..., None].float())
    chance = torch.sigmoid(logits)
    right = torch.where(wanted > 0, chance, 1 - chance)
    weight = torch.where(wanted > 0, 0.25, 0.75) * (1 - right) ** 2
    each = weight * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    count = positive.sum().clamp_min(1)
    ours = decoded(distances, points, strides)[positive]
    theirs = torch.gather(boxes, 1, which[..., None].expand(-1, -1, 4))[positive]
    return each.sum() / count + (1 - _giou(ours, theirs)).sum() / count


def decoded(distances: Any, points: Any, strides: Any) -> Any:
    """Boxes [..., cells, 4] in pixels."""
    cells = distances * strides[:, None]
    stack = torch.cat if isinstance(distances, Tensor) else np.concatenate
    return stack([points - cells[..., :2], points + cells[..., 2:]], -1)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """H. Rezatofighi et al., *Generalized Intersection over Union*, 2019; boxes [n, 4]."""
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0).prod(1)
    outer = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).clamp_min(0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inner
    return inner / union.clamp_min(1e-6) - (outer - union) / outer.clamp_min(1e-6)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union [n, m] of boxes [n, 4] and [m, 4]."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(1) for each in (a, b)]
    return inner / np.maximum(areas[0][:, None] + areas[1][None] - inner, 1e-9)


def found(distances: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(classes [k], scores [k], boxes [k, 4]) of one picture, best first, after non-maximum suppression by class."""
    points, strides = (each.numpy() for each in centres())
    boxes, scores = decoded(distances.astype(np.float64), points, strides), 1 / (1 + np.exp(-logits.astype(np.float64)))
    cells, classes = np.nonzero(scores >= THRESHOLD)
    order = np.argsort(-scores[cells, classes], kind="stable")[:100]
    cells, classes = cells[order], classes[order]
    kept: list[int] = []
    table = overlaps(boxes[cells], boxes[cells])
    for place in range(len(cells)):
        if all(classes[place] != classes[other] or table[place, other] <= OVERLAP for other in kept):
            kept.append(place)
    return classes[kept], scores[cells[kept], classes[kept]], boxes[cells[kept]]


def average_precision(outputs: tuple[np.ndarray, ...], target: np.ndarray) -> float:
    """Mean over classes of the area under precision over recall (all points) at an overlap of 0.5, in percent."""
    rows: list[list[tuple[float, bool]]] = [[] for _ in range(10)]
    wanted = [int((target[:, :, 0] == label).sum()) for label in range(10)]
    for distances, logits, truth in zip(*outputs[:2], target, strict=True):
        for label, score, hit in _judged(distances, logits, truth):
            rows[label].append((score, hit))
    areas = []
    for label in range(10):
        ranked = sorted(rows[label], key=lambda row: -row[0])
        hits = np.cumsum([hit for _, hit in ranked])
        if not wanted[label]:
            continue
        precision = hits / np.arange(1, len(hits) + 1) if len(hits) else np.zeros(0)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        areas.append(float((best * [hit for _, hit in ranked]).sum()) / wanted[label])
    return 100 * float(np.mean(areas))


def _judged(distances: np.ndarray, logits: np.ndarray, truth: np.ndarray) -> list[tuple[int, float, bool]]:
    """(class, score, whether it is a digit that nothing better had found) of all that was found in one picture."""
    classes, scores, boxes = found(distances, logits)
    truth = truth[truth[:, 0] >= 0]
    table = overlaps(boxes, truth[:, 1:].astype(np.float64))
    used: set[int] = set()
    judged = []
    for place, label in enumerate(classes):
        fits = [
            each
            for each in range(len(truth))
            if truth[each, 0] == label and each not in used and table[place, each] >= MATCH
        ]
        if fits:
            used.add(max(fits, key=lambda each: table[place, each]))
        judged.append((int(label), float(scores[place]), bool(fits)))
    return judged


def task() -> Task:
    """Of each picture the F1 score of what is found with a score of 0.3 or more; mAP is `average_precision`."""

    def per_sample(outputs: tuple[np.ndarray, ...], target: np.ndarray) -> np.ndarray:
        values = []
        for distances, logits, truth in zip(*outputs[:2], target, strict=True):
            sure = [hit for _, score, hit in _judged(distances, logits, truth) if score >= 0.3]
            values.append(2 * sum(sure) / max(1, len(sure) + int((truth[:, 0] >= 0).sum())))
        return np.array(values)

    def distillation(student: Any, teacher: Any, temperature: float) -> Tensor:
        del temperature
        (ours, scores), (theirs, wanted) = outputs_of(student), outputs_of(teacher)
        certain = torch.sigmoid(wanted.float()).amax(-1, keepdim=True)
        classes = F.binary_cross_entropy_with_logits(scores.float(), torch.sigmoid(wanted.float()), reduction="none")
        return classes.sum() / certain.sum().clamp_min(1) + (certain * (ours.float() - theirs.float()) ** 2).mean()

    return custom(
        name="detection",
        metric="F1 at an overlap of 0.5",
        unit="points",
        scale=100.0,
        loss=objective,
        per_sample=per_sample,
        distillation=distillation,
        agreement=lambda a, b: (a[1].argmax(-1) == b[1].argmax(-1)).mean(axis=1),
    )


def figures(run: Run) -> dict[str, float]:
    """Mean average precision of the first 2,000 pictures at an overlap of 0.5, in percent."""
    data = test_data()
    rows = [data[index] for index in range(2000)]
    outputs = run({"image": torch.stack([x for x, _ in rows]).numpy()})
    return {"mAP@0.5 (%)": average_precision(outputs, torch.stack([y for _, y in rows]).numpy())}


@torch.no_grad()
def score(network: nn.Module, data: Dataset[Any]) -> str:
    """Both mAP and F1 of the first 2,000 pictures."""
    network.eval()
    batches = [
        ([o.numpy() for o in network(x)], y.numpy())
        for x, y in DataLoader(torch.utils.data.Subset(data, range(2000)), 250)
    ]
    outputs = tuple(np.concatenate([batch[0][each] for batch in batches]) for each in range(2))
    target = np.concatenate([batch[1] for batch in batches])
    return f"mAP@0.5 {average_precision(outputs, target):.2f} %, F1 {task().value(outputs, target):.2f} %"


RECIPES = {
    "detector": Recipe(
        network=Detector,
        epochs=3,
        settings={"optimizer": "adamw", "learning_rate": 3e-3, "batch_size": 64, "clip_norm": 5.0},
        objective=lambda network, batch: objective(batch.call(network), batch.target),
        score=score,
    )
}


def detector() -> nn.Module:
    """The trained detector."""
    return trained("detector", "detection.py", RECIPES)


def train_data() -> Found:
    """Pictures to learn from, with other digits each time."""
    return Found("train", augment=True)


def test_data() -> Found:
    """Pictures and digits that training never sees."""
    return Found("test")


if __name__ == "__main__":
    command_line(__doc__, RECIPES, train_data, test_data)
