"""From sound to log-mel features, exactly as in training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from edgekit.device.processing import fields
from edgekit.device.processing.sound import MAX_RATE, MAX_SAMPLES, samples_of
from edgekit.errors import DataError

WindowFunction = Literal["hann", "hann_symmetric", "hamming"]
MelScale = Literal["htk", "slaney"]
MAX_FFT, MAX_MELS = 65_536, 1024
_BLOCK = 1024
"""Frames transformed at a time, so that a long recording needs no more memory than a short one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMelPreprocessing:
    """How mono samples become log-mel features: frames, window, spectrum, mel filters, logarithm, (x - mean) / std.

    All in float64, rounded to float32 at the end.

    Attributes:
        sample_rate: in Hz.
        samples: a recording is cut, or filled with silence at its end, to so many samples. None takes it as long as it
            is, filled to one frame where it is shorter.
        window, fft, hop: lengths in samples of a frame's window, of its transform, and of the step between frames.
        centre: put fft // 2 samples of reflected signal at both ends and centre the window in frames of `fft` samples
            (librosa, torchaudio). Else frames of `window` samples, filled with zeros at their end to `fft`.
        window_function: `hann` (periodic, as torch and librosa), `hann_symmetric` (`numpy.hanning`) or `hamming`
            (periodic).
        power: 1 for magnitudes, 2 for energies.
        mels, low_hz, high_hz: number of triangular filters, and where the first begins and the last ends.
        mel_scale: `htk` is 2595 log10(1 + f / 700); `slaney` is linear up to 1 kHz and logarithmic above.
        norm: `slaney` divides each filter by half its width in Hz; None leaves its peak at 1.
        log, floor, floor_by: the `natural` or `log10` logarithm of x + floor (`add`) or of max(x, floor) (`max`).
        mean, std: of the logarithms.
        layout: of the input: `TF` is [1, frames, mels], `FT` [1, mels, frames], `1TF` and `1FT` have one channel first.

    Raises:
        DataError: a field is out of range; the text names it.

    >>> prepare = LogMelPreprocessing(sample_rate=8000, samples=8000, window=256, hop=80)
    >>> prepare.apply(np.zeros(5000, np.float32)).shape
    (1, 97, 40)
    """

    kind: ClassVar[str] = "log_mel"
    side: ClassVar[str] = "preprocessing"

    sample_rate: int
    window: int
    hop: int
    samples: int | None = None
    fft: int | None = None
    centre: bool = False
    window_function: WindowFunction = "hann"
    power: int = 2
    mels: int = 40
    low_hz: float = 0.0
    high_hz: float | None = None
    mel_scale: MelScale = "htk"
    norm: Literal["slaney"] | None = None
    log: Literal["natural", "log10"] = "natural"
    floor: float = 1e-5
    floor_by: Literal["add", "max"] = "add"
    mean: float = 0.0
    std: float = 1.0
    layout: Literal["TF", "FT", "1TF", "1FT"] = "TF"

    def __post_init__(self) -> None:
        fields.check_whole(self, "sample_rate", 1, MAX_RATE)
        fields.check_whole(self, "window", 2, MAX_FFT)
        if self.fft is None:
            object.__setattr__(self, "fft", self.window)
        fields.check_whole(self, "fft", self.window, MAX_FFT)
        fields.check_whole(self, "hop", 1, MAX_FFT)
        fields.check_flag(self, "centre")
        fields.check_whole(self, "samples", self.shortest, MAX_SAMPLES, optional=True)
        fields.check_choice(self, "window_function", ("hann", "hann_symmetric", "hamming"))
        fields.check_whole(self, "power", 1, 2)
        fields.check_whole(self, "mels", 1, MAX_MELS)
        if self.high_hz is None:
            object.__setattr__(self, "high_hz", self.sample_rate / 2)
        fields.check_number(self, "high_hz", 1e-3, self.sample_rate / 2)
        fields.check_number(self, "low_hz", 0.0, self._high_hz)
        if self.low_hz >= self._high_hz:
            fields.refuse(self, "low_hz", f"less than high_hz, {self.high_hz}")
        fields.check_choice(self, "mel_scale", ("htk", "slaney"))
        if self.norm is not None:
            fields.check_choice(self, "norm", ("slaney",))
        fields.check_choice(self, "log", ("natural", "log10"))
        fields.check_number(self, "floor", 1e-30)
        fields.check_choice(self, "floor_by", ("add", "max"))
        fields.check_number(self, "mean")
        fields.check_number(self, "std", 1e-30)
        fields.check_choice(self, "layout", ("TF", "FT", "1TF", "1FT"))

    @property
    def transform(self) -> int:
        """`fft`, which has its default by now."""
        assert self.fft is not None
        return self.fft

    @property
    def shortest(self) -> int:
        """Samples of the shortest recording; a reflection needs one more than it reflects."""
        return max(self.window, self.transform // 2 + 1) if self.centre else self.window

    @property
    def _high_hz(self) -> float:
        assert self.high_hz is not None
        return self.high_hz

    def frames(self, samples: int) -> int:
        """Number of frames of a recording of so many samples, cut or filled already."""
        if self.centre:
            return 1 + (samples + 2 * (self.transform // 2) - self.transform) // self.hop
        return 1 + (samples - self.window) // self.hop

    def apply(self, sound: np.ndarray | str | Path) -> np.ndarray:
        """The model's input float32 of one recording, in the shape that `layout` says.

        Args:
            sound: samples [n] as floats in [-1, 1] or int16, which are divided by 32768; or a .wav file of the rate
                `sample_rate`, whose channels are averaged.

        Raises:
            DataError: the array is no such recording, or the file cannot be read or has another sample rate.
        """
        samples = samples_of(sound, self.sample_rate)
        features = self._features(self._framed(self._sized(samples)))
        shaped = (features if self.layout.endswith("TF") else features.T)[None]
        return np.ascontiguousarray(shaped[None] if self.layout.startswith("1") else shaped)

    def _sized(self, samples: np.ndarray) -> np.ndarray:
        wanted = self.samples or max(len(samples), self.shortest)
        sized = np.zeros(wanted)
        sized[: min(wanted, len(samples))] = samples[:wanted]
        return sized

    def _framed(self, samples: np.ndarray) -> np.ndarray:
        """Frames float64 [frames, fft or window] as a view."""
        if self.centre:
            samples = np.pad(samples, self.transform // 2, mode="reflect")
        length = self.transform if self.centre else self.window
        return np.lib.stride_tricks.sliding_window_view(samples, length)[:: self.hop]

    def _features(self, frames: np.ndarray) -> np.ndarray:
        """Features float32 [frames, mels] of frames."""
        window, filters = self.window_values(), self.filters().T
        if self.centre:
            before = (self.transform - self.window) // 2
            window = np.pad(window, (before, self.transform - self.window - before))
        found = np.empty((len(frames), self.mels), np.float32)
        for start in range(0, len(frames), _BLOCK):
            spectrum = np.abs(np.fft.rfft(frames[start : start + _BLOCK] * window, self.transform, axis=1))
            energies = (spectrum**self.power) @ filters
            floored = energies + self.floor if self.floor_by == "add" else np.maximum(energies, self.floor)
            logs = np.log(floored) if self.log == "natural" else np.log10(floored)
            found[start : start + _BLOCK] = (logs - self.mean) / self.std
        return found

    def window_values(self) -> np.ndarray:
        """The window float64 [window]."""
        period = self.window - 1 if self.window_function == "hann_symmetric" else self.window
        constant = 0.54 if self.window_function == "hamming" else 0.5
        values: np.ndarray = constant - (1 - constant) * np.cos(2 * np.pi * np.arange(self.window) / period)
        return values

    def filters(self) -> np.ndarray:
        """The triangular filters float64 [mels, fft // 2 + 1]; their corners are equally spaced in mel."""
        low, high = _mel(self.low_hz, self.mel_scale), _mel(self._high_hz, self.mel_scale)
        edges = np.array([_hz(mel, self.mel_scale) for mel in np.linspace(low, high, self.mels + 2).tolist()])
        bins = np.arange(self.transform // 2 + 1) * (self.sample_rate / self.transform)
        widths = np.diff(edges)
        rising = (bins - edges[:-2, None]) / widths[:-1, None]
        falling = (edges[2:, None] - bins) / widths[1:, None]
        triangles: np.ndarray = np.maximum(0.0, np.minimum(rising, falling))
        return triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None] if self.norm == "slaney" else triangles

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return fields.write(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "preprocessing", *, complete: bool = True) -> Self:
        """Read what `to_dict` wrote; without `complete`, keys that are missing have their defaults.

        Raises:
            DataError: a key is missing, unknown or of another type, or a value is out of range; the text says which.
        """
        made = fields.read(cls, data, where, complete=complete)
        if complete and (data["fft"] is None or data["high_hz"] is None):  # type: ignore[index]  # read() saw a mapping
            raise DataError("got None", where=f"{where}.fft or {where}.high_hz", rule="numbers")
        return made


def _mel(hz: float, scale: MelScale) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hz / 700.0)
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def _hz(mel: float, scale: MelScale) -> float:
    if scale == "htk":
        return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)
