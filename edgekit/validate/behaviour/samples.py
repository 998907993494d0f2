"""The answers that compression broke: how sure the models were of them, and what they look like."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Subset

from edgekit import stats
from edgekit.stats import Estimate
from edgekit.validate.behaviour.answers import Answers, Pair
from edgekit.validate.behaviour.pixels import Inputs, PixelSpace, pixel_space
from edgekit.validate.feeds import feeds_of, signature_of
from edgekit.validate.scoring import Score
from edgekit.workload import Answered, loader

SHOWN = 24
PICTURE_BYTES = 2048
"""Of a picture in base64."""
SIDES = (48, 40, 32, 24, 16, 8)
"""Pixels of the longer side of a picture, the first that fits; none is enlarged."""
COLOURS = 64
CONFIDENCES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one model says of one sample.

    Args:
        prediction: the class; the labels that it gives; None where the answer is many positions or a quantity.
        name: of the class or of the labels.
        confidence: probability that the model gives to it (for labels: to the decision that shows the sample's place
            here), 0 to 1.
        value: the sample's metric, in the metric's unit.
    """

    prediction: int | tuple[int, ...] | None
    name: str
    confidence: float | None
    value: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "prediction": list(self.prediction) if isinstance(self.prediction, tuple) else self.prediction,
            "name": self.name,
            "confidence": self.confidence,
            "value": self.value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenSample:
    """One sample that was answered better before.

    Args:
        index: of the sample in the user's own data set.
        position: among the samples that were scored.
        label: the right class, or the right labels; None where that is many positions or a quantity.
        label_name: in words.
        reference: what the original says.
        candidate: what the compressed file says.
        picture: a PNG in base64, of at most 2,048 characters; None where the input is no image.
    """

    index: int
    position: int
    label: int | tuple[int, ...] | None
    label_name: str
    reference: Said
    candidate: Said
    picture: str | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "index": self.index,
            "position": self.position,
            "label": list(self.label) if isinstance(self.label, tuple) else self.label,
            "label_name": self.label_name,
            "reference": self.reference.to_dict(),
            "candidate": self.candidate.to_dict(),
            "picture": self.picture,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceBand:
    """The samples that the original answers right with a confidence in [low, high), and how many of them broke.

    Args:
        low: of the band.
        high: of the band; the last one holds 1 as well.
        n: samples (or positions, or labels) that the original answers right so.
        broken: of them, how many the compressed file answers wrong.
        share: in percent, with its Wilson interval; None where there are none.
    """

    low: float
    high: float
    n: int
    broken: int
    share: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "broken": self.broken,
            "share": None if self.share is None else self.share.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenSamples:
    """What broke.

    Args:
        n: samples that broke; where nothing is right or wrong, samples that are answered worse.
        order: what the shown ones are ordered by, in words.
        pictures: where black and white of the pictures are known from; empty where there are none.
        shown: the first of them.
        by_confidence: empty where the task has no confidences.
    """

    n: int
    order: str
    pictures: str
    shown: tuple[BrokenSample, ...]
    by_confidence: tuple[ConfidenceBand, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "n": self.n,
            "order": self.order,
            "pictures": self.pictures,
            "shown": [each.to_dict() for each in self.shown],
            "by_confidence": [each.to_dict() for each in self.by_confidence],
        }


def broken_samples(
    reference: Score,
    candidate: Score,
    pair: Pair | None,
    *,
    names: Sequence[str] = (),
    inputs: Inputs | None = None,
    shown: int = SHOWN,
) -> BrokenSamples:
    """The samples that broke, those first of whose wrong answer the compressed file is surest.

    Where answers are positions or quantities, those first whose metric fell most.

    Args:
        reference: the original's score.
        candidate: the compressed file's.
        pair: their answers; None where the task has no classes.
        names: of the classes.
        inputs: to find the samples again in the data, and their pictures; without it there are none.
        shown: how many to describe.
    """
    n = reference.n if pair is None else pair.reference.n
    worse = reference.per_sample[:n] - candidate.per_sample[:n]
    worse = worse if reference.higher_is_better else -worse
    if pair is None or pair.reference.kind == "positions":
        broken, ranked = worse > 0, worse
        order = f"fall of the sample's {reference.name}"
    else:
        broken = (pair.reference.right & ~pair.candidate.right)[:, 0]
        ranked = _sureness(pair.candidate)[0]
        order = "confidence of the compressed file in its wrong answer"
    found = np.flatnonzero(broken)
    found = found[np.argsort(-ranked[found], kind="stable")]
    space = None if inputs is None or not len(found) else pixel_space(inputs)
    return BrokenSamples(
        n=len(found),
        order=order,
        pictures="" if space is None else space.source,
        shown=tuple(
            _sample(int(position), (reference, candidate), pair, names, _look(int(position), inputs, space))
            for position in found[:shown]
        ),
        by_confidence=() if pair is None else _bands(pair),
    )


def _sureness(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """For each sample the confidence in the wrong decision that the model is surest of [n], and which that is [n]."""
    sure = np.where(answers.correct, -1.0, answers.confidence)
    which = sure.argmax(axis=1)
    return sure[np.arange(len(sure)), which], which


def _sample(
    position: int, scores: tuple[Score, Score], pair: Pair | None, names: Sequence[str], seen: tuple[int, str | None]
) -> BrokenSample:
    label, label_name = (None, "") if pair is None else _named(pair.reference, pair.reference.truth, position, names)
    answers = (None, None) if pair is None else (pair.reference, pair.candidate)
    which = 0 if pair is None else int(_sureness(pair.candidate)[1][position])
    said = []
    for score, each in zip(scores, answers, strict=True):
        value = float(score.per_sample[position])
        if each is None or each.kind == "positions":
            said.append(Said(prediction=None, name="", confidence=None, value=value))
        else:
            prediction, name = _named(each, each.predicted, position, names)
            sure = float(each.confidence[position, which])
            said.append(Said(prediction=prediction, name=name, confidence=sure, value=value))
    return BrokenSample(
        index=seen[0],
        position=position,
        label=label,
        label_name=label_name,
        reference=said[0],
        candidate=said[1],
        picture=seen[1],
    )


def _named(
    answers: Answers, decisions: np.ndarray, position: int, names: Sequence[str]
) -> tuple[int | tuple[int, ...] | None, str]:
    """A class or labels, and their names; the number where there is no name."""
    if answers.kind == "positions":
        return None, ""
    known = names if len(names) == answers.classes else [str(index) for index in range(answers.classes)]
    if answers.kind == "classes":
        one = int(decisions[position, 0])
        return one, known[one]
    several = tuple(np.flatnonzero(decisions[position]).tolist())
    return several, ", ".join(known[index] for index in several) or "none"


def _bands(pair: Pair) -> tuple[ConfidenceBand, ...]:
    right, broken = pair.reference.correct, pair.reference.correct & ~pair.candidate.correct
    band_of = np.minimum((CONFIDENCES * pair.reference.confidence).astype(np.int64), CONFIDENCES - 1)
    sizes = np.bincount(band_of[right], minlength=CONFIDENCES).tolist()
    lost = np.bincount(band_of[broken], minlength=CONFIDENCES).tolist()
    return tuple(
        ConfidenceBand(
            low=index / CONFIDENCES,
            high=(index + 1) / CONFIDENCES,
            n=n,
            broken=gone,
            share=stats.share(gone, n) if n else None,
        )
        for index, (n, gone) in enumerate(zip(sizes, lost, strict=True))
    )


def _look(position: int, inputs: Inputs | None, space: PixelSpace | None) -> tuple[int, str | None]:
    """The index of a scored sample in the user's data, and its picture."""
    if inputs is None:
        return position, None
    stream = loader(inputs.data, 1, model=signature_of(inputs.spec), limit=inputs.limit, seed=inputs.seed).stream
    (index,) = stream.indexes(position)
    data: Any = inputs.data
    while isinstance(data, Subset | Answered):
        index = int(data.indices[index]) if isinstance(data, Subset) else index
        data = data.dataset
    if space is None:
        return index, None
    feeds = feeds_of(stream.batch(position), inputs.spec)
    return index, picture(space.pixels(feeds[space.name])[0])


def picture(pixels: np.ndarray) -> str | None:
    """Pixels [h, w, c] in [0, 1] as a PNG in base64 of at most 2,048 characters, reduced until it fits.

    >>> picture(np.zeros((4, 4, 1), np.float32))[:8]
    'iVBORw0K'
    """
    from PIL import Image

    values = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    whole = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    for side in SIDES:
        image = whole.copy()
        image.thumbnail((side, side), Image.Resampling.BOX)
        for each in (image, image.quantize(COLOURS)):
            file = io.BytesIO()
            each.save(file, "PNG", optimize=True)
            text = base64.b64encode(file.getvalue()).decode()
            if len(text) <= PICTURE_BYTES:
                return text
    return None
