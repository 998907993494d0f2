"""From sound to the samples themselves, for networks that listen to the waveform."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from edgekit.device.processing import fields
from edgekit.device.processing.sound import MAX_RATE, MAX_SAMPLES, samples_of

Normalize = Literal["recording", "input"]
EPSILON = 1e-7
"""Added to the variance, as in the feature extractors of wav2vec 2.0 and its kin in transformers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveformPreprocessing:
    """How mono samples become a network's input: cut or filled, and brought to mean 0 and variance 1.

    All in float64, rounded to float32 at the end.

    Attributes:
        sample_rate: in Hz.
        samples: a recording is cut, or filled with zeros at its end, to so many samples. None takes it as long as it
            is.
        normalize: (x - mean) / sqrt(variance + 1e-7), with the figures of what is kept of the `recording`, zeros being
            filled in afterwards, or of the `input` with those zeros; None leaves samples in [-1, 1] as they are.
            transformers' `Wav2Vec2FeatureExtractor` does the first where it returns an attention mask, else the second.
        layout: of the input: `T` is [1, samples], `1T` [1, 1, samples].

    Raises:
        DataError: a value is out of range; the text says which.

    >>> prepare = WaveformPreprocessing(sample_rate=16000, samples=4, normalize="recording")
    >>> prepare.apply(np.array([0.1, 0.3])).tolist()
    [[-0.9999949932098389, 0.9999949932098389, 0.0, 0.0]]
    """

    kind: ClassVar[str] = "waveform"
    side: ClassVar[str] = "preprocessing"

    sample_rate: int
    samples: int | None = None
    normalize: Normalize | None = None
    layout: Literal["T", "1T"] = "T"

    def __post_init__(self) -> None:
        fields.check_whole(self, "sample_rate", 1, MAX_RATE)
        fields.check_whole(self, "samples", self.shortest, MAX_SAMPLES, optional=True)
        if self.normalize is not None:
            fields.check_choice(self, "normalize", ("recording", "input"))
        fields.check_choice(self, "layout", ("T", "1T"))

    @property
    def shortest(self) -> int:
        """Samples of the shortest recording."""
        return 1

    def apply(self, sound: np.ndarray | str | Path) -> np.ndarray:
        """The model's input float32 of one recording, in the shape that `layout` says.

        Args:
            sound: samples [n] as floats in [-1, 1] or int16, which are divided by 32768; or a .wav file of the rate
                `sample_rate`, whose channels are averaged.

        Raises:
            DataError: the array is no such recording, or the file cannot be read or has another sample rate.
        """
        kept = samples_of(sound, self.sample_rate)[: self.samples]
        if self.normalize == "recording":
            kept = _normal(kept)
        sized = np.zeros(self.samples or len(kept))
        sized[: len(kept)] = kept
        if self.normalize == "input":
            sized = _normal(sized)
        shaped = sized.astype(np.float32)[None]
        return shaped[None] if self.layout == "1T" else shaped

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return fields.write(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "preprocessing", *, complete: bool = True) -> Self:
        """Read what `to_dict` wrote; without `complete`, keys that are missing have their defaults.

        Raises:
            DataError: a key is missing, unknown or of another type, or a value is out of range; the text says which.
        """
        return fields.read(cls, data, where, complete=complete)


def _normal(samples: np.ndarray) -> np.ndarray:
    normal: np.ndarray = (samples - samples.mean()) / np.sqrt(samples.var() + EPSILON)
    return normal
