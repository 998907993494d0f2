"""All kinds together: what a bundle's `preprocessing` and `postprocessing` may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.device.processing.classification import ClassificationPostprocessing
from edgekit.device.processing.detection import DetectionPostprocessing
from edgekit.device.processing.image import ImagePreprocessing
from edgekit.device.processing.log_mel import LogMelPreprocessing
from edgekit.device.processing.text import TextPostprocessing
from edgekit.device.processing.vocabulary import Vocabulary
from edgekit.device.processing.waveform import WaveformPreprocessing
from edgekit.device.processing.wordpiece import WordpiecePreprocessing
from edgekit.errors import DataError, did_you_mean
from edgekit.spec import Feeds, IOSpec

SoundPreprocessing = LogMelPreprocessing | WaveformPreprocessing
"""From a recording to a model's input."""

Preprocessing = ImagePreprocessing | SoundPreprocessing | WordpiecePreprocessing
"""From raw input (an image, a recording, a text) to a model's inputs."""

Postprocessing = ClassificationPostprocessing | DetectionPostprocessing | TextPostprocessing
"""From a model's outputs to an answer (labels, boxes, a text)."""

_BEFORE = {
    each.kind: each for each in (ImagePreprocessing, LogMelPreprocessing, WaveformPreprocessing, WordpiecePreprocessing)
}
_AFTER = {each.kind: each for each in (ClassificationPostprocessing, DetectionPostprocessing, TextPostprocessing)}


def preprocessing_from(data: object, where: str = "preprocessing", *, complete: bool = True) -> Preprocessing:
    """The preprocessing of the object's `kind`; without `complete`, keys that are missing have their defaults.

    Raises:
        DataError: the kind is unknown, or a key or value is not what it must be; the text names the path.
    """
    made: Preprocessing = _kind(data, _BEFORE, where).from_dict(data, where, complete=complete)
    return made


def postprocessing_from(data: object, where: str = "postprocessing", *, complete: bool = True) -> Postprocessing:
    """The postprocessing of the object's `kind`; without `complete`, keys that are missing have their defaults.

    Raises:
        DataError: the kind is unknown, or a key or value is not what it must be; the text names the path.
    """
    made: Postprocessing = _kind(data, _AFTER, where).from_dict(data, where, complete=complete)
    return made


def prepared(preprocessing: Preprocessing, raw: np.ndarray | str, spec: IOSpec, vocabulary: Vocabulary | None) -> Feeds:
    """The model's inputs by name for one raw sample: an image, a recording, or a text.

    Raises:
        DataError: the sample is not what the preprocessing takes; the text says what it does.
    """
    if isinstance(preprocessing, WordpiecePreprocessing):
        if not isinstance(raw, str):
            raise DataError(
                f"got {raw.dtype} {list(raw.shape)}", where="text", rule="a text, or tensors by name for its ids"
            )
        assert vocabulary is not None, "the manifest sees to it that there is one"
        return preprocessing.apply(raw, vocabulary)
    if isinstance(raw, str):
        raise DataError("got a text", where=preprocessing.kind, rule="an array or a file")
    return {spec.inputs[0].name: preprocessing.apply(raw)}


def vocabulary_file(*processing: Preprocessing | Postprocessing | None) -> str | None:
    """The file in the bundle that holds the vocabulary of these, if any needs one.

    Raises:
        DataError: they need different ones.
    """
    found = {each.vocabulary for each in processing if isinstance(each, WordpiecePreprocessing | TextPostprocessing)}
    if len(found) > 1:
        raise DataError(f"got {', '.join(sorted(found))}", where="vocabulary", rule="one for both sides of the model")
    return next(iter(found), None)


def _kind(data: object, kinds: Mapping[str, Any], where: str) -> Any:
    if not isinstance(data, Mapping):
        raise DataError(f"got {type(data).__name__}", where=where, rule="expected an object")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise DataError(
            f"got {kind!r}", where=f"{where}.kind", rule=f"one of {', '.join(kinds)}", way_out=did_you_mean(kind, kinds)
        )
    return kinds[kind]
