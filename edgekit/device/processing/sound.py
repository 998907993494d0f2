"""Sound files as samples, with the standard library alone."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from edgekit.errors import DataError

MAX_SAMPLES, MAX_RATE = 100_000_000, 1_000_000
_PCM = "uncompressed PCM of 8, 16, 24 or 32 bits"


def read_wav(path: Path, sample_rate: int) -> np.ndarray:
    """A .wav file as float32 [n] in [-1, 1]; channels are averaged.

    Args:
        path: the file.
        sample_rate: the one that the model takes, in Hz. Another is refused, since resampling well is an art of its
            own, and resampling badly is a fault that nobody would notice.

    Raises:
        DataError: the file cannot be read, is no PCM, is longer than 100 million samples, or has another rate.
    """
    convert = f"ffmpeg -i {path.name} -ac 1 -ar {sample_rate} -c:a pcm_s16le {path.stem}-{sample_rate}.wav"
    try:
        with wave.open(str(path), "rb") as file:
            rate, width, channels, frames = (
                file.getframerate(),
                file.getsampwidth(),
                file.getnchannels(),
                file.getnframes(),
            )
            if rate != sample_rate:
                raise DataError(
                    f"{rate} Hz", where=str(path), rule=f"the model takes {sample_rate} Hz", way_out=convert
                )
            if frames * channels > MAX_SAMPLES or width > 4:
                raise DataError(
                    f"{frames * channels} samples of {8 * width} bits",
                    where=str(path),
                    rule=f"at most {MAX_SAMPLES} samples, {_PCM}",
                )
            data = file.readframes(frames)
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(
            f"cannot read the sound: {error}", where=str(path), rule=f"a .wav file, {_PCM}", way_out=convert
        ) from error
    whole = data[: len(data) - len(data) % (width * channels)]
    mixed: np.ndarray = _values(whole, width).reshape(-1, channels).mean(axis=1).astype(np.float32)
    return mixed


def samples_of(sound: np.ndarray | str | Path, sample_rate: int) -> np.ndarray:
    """A recording, as an array or a .wav file of that rate in Hz, as float64 [n] in [-1, 1].

    Raises:
        DataError: the array is no recording of one channel, or the file cannot be read or has another rate.
    """
    samples = sound if isinstance(sound, np.ndarray) else read_wav(Path(sound), sample_rate)
    fits = samples.ndim == 1 and 0 < samples.size <= MAX_SAMPLES
    if not fits or (samples.dtype != np.int16 and samples.dtype.kind != "f") or not np.all(np.isfinite(samples)):
        raise DataError(
            f"got {samples.dtype} {list(samples.shape)}" + (", not all finite" if fits else ""),
            where="sound",
            rule=f"samples [n] of one channel: floats in [-1, 1], or int16; 1 to {MAX_SAMPLES} of them",
            way_out="average the channels; a prepared tensor goes in by name: predict({'input': tensor})",
        )
    return samples / 32768.0 if samples.dtype == np.int16 else samples.astype(np.float64)


def _values(data: bytes, width: int) -> np.ndarray:
    """Little-endian PCM as float64 in [-1, 1)."""
    if width == 1:  # The only width without a sign.
        return (np.frombuffer(data, np.uint8) - 128.0) / 128
    # Each sample in the upper bytes of 32 bits, so that 24 of them need no case of their own.
    wide = np.zeros((len(data) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    values: np.ndarray = wide.view("<i4")[:, 0] / 2.0**31
    return values
