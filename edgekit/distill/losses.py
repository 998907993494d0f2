"""Losses on logits, as formulas; each is a mean over samples, and over positions where there are several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor

TINY = 1e-7
"""Keeps the spread of equal logits from being divided by."""


def standardized(logits: Tensor) -> Tensor:
    """Logits [n, classes, ...] with mean 0 and standard deviation 1 over the classes of each sample.

    S. Sun et al., *Logit Standardization in Knowledge Distillation* (CVPR 2024), section 4: a student need not match
    the range and the variance of its teacher's logits, only their relations.

    >>> z = torch.tensor([[1.0, 2.0, 3.0]])
    >>> standardized(7 * z + 5).round(decimals=3).tolist()
    [[-1.0, 0.0, 1.0]]
    """
    centred = logits - logits.mean(1, keepdim=True)
    return centred / (TINY + logits.std(1, keepdim=True))


def mixed(logits: Sequence[Tensor], weights: Sequence[float], temperature: float) -> Tensor:
    """One teacher out of several: logits [n, classes, ...] whose softmax at `temperature` is the mean of all of theirs.

    >>> mixed([torch.tensor([[0.0, 0.0]]), torch.tensor([[9e9, 0.0]])], [1, 1], 2.0).div(2).softmax(1)
    tensor([[0.7500, 0.2500]])
    """
    total = sum(weights)
    # The logarithm of a weighted sum of probabilities, without leaving logarithms.
    each = [
        F.log_softmax(z / temperature, 1) + torch.tensor(w / total).log() for z, w in zip(logits, weights, strict=True)
    ]
    return temperature * torch.logsumexp(torch.stack(each), 0)


def target_and_rest(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The two parts of a distillation loss, for each sample: about the target, and about the other classes.

    B. Zhao et al., *Decoupled Knowledge Distillation* (CVPR 2022), section 3.1: KL(teacher ‖ student) is the first,
    plus the second times the probability that the teacher gives to the other classes. Neither has the factor T².

    Args:
        student: logits [n, classes].
        teacher: likewise.
        target: int64 [n].
        temperature: softens both.

    Returns:
        KL of (target, not target), and KL among the classes that are not the target; float [n] each.
    """
    log_q, log_p = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    is_target = F.one_hot(target, student.shape[1]).bool()

    def split(log: Tensor) -> tuple[Tensor, Tensor]:
        rest = log[~is_target].view(len(log), -1)
        return torch.stack([log[is_target], rest.logsumexp(1)], 1), rest.log_softmax(1)

    (ours, our_rest), (theirs, their_rest) = split(log_q), split(log_p)
    return _divergence(theirs, ours), _divergence(their_rest, our_rest)


def decoupled(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float, *, target_weight: float, rest_weight: float
) -> Tensor:
    """T² times the weighted sum of both parts of `target_and_rest`, the mean over samples and positions.

    Args:
        student: logits [n, classes, ...].
        teacher: likewise.
        target: int64 [n, ...]; where it is negative (a sample without a label), the teacher's answer stands for it.
        temperature: softens both.
        target_weight: alpha of the paper.
        rest_weight: beta of the paper.
    """
    ours, theirs = (z.movedim(1, -1).flatten(0, -2) for z in (student, teacher))
    labels = target.long().flatten()
    labels = torch.where(labels < 0, theirs.argmax(1), labels)
    about_target, about_rest = target_and_rest(ours, theirs, labels, temperature)
    return temperature**2 * (target_weight * about_target + rest_weight * about_rest).mean()


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
