"""What is heard, as events: a sliding window over a recording or a microphone, with hysteresis.

    python listen.py keywords.edgekit recording.wav
    arecord -q -t raw -f S16_LE -r 8000 -c 1 | python listen.py keywords.edgekit -

The bundle must take sound (preprocessing `log_mel` or `waveform`) and give labels. An event begins where the mean
probability of the last windows reaches `--on`, and only after it has fallen below `--off` can the same label begin
again: one word is one event, however many windows hear it. Needs edgekit with onnxruntime, nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgekit.device import Prediction, load
from edgekit.device.processing import SoundPreprocessing
from edgekit.device.processing.sound import read_wav
from edgekit.errors import BundleError, EdgekitError


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A label that began to be heard: the end of its first window in seconds, and the mean probability there."""

    time_s: float
    label: str
    confidence: float

    def __str__(self) -> str:
        return f"{self.time_s:8.2f} s  {self.label} ({self.confidence:.1%})"


class Hysteresis:
    """Turns probabilities that flicker into events.

    Args:
        labels: names of the classes.
        on: a label begins at this mean probability.
        off: it ends below this one.
        windows: how many windows the mean is taken over.
        ignored: labels that are no events, such as background noise.
    """

    def __init__(self, labels: Sequence[str], *, on: float, off: float, windows: int, ignored: Sequence[str]) -> None:
        if not 0 < off <= on <= 1:
            raise EdgekitError(f"got --on {on:g} --off {off:g}", where="listen", rule="0 < off <= on <= 1")
        if unknown := sorted(set(ignored) - set(labels)):
            raise EdgekitError(f"got --ignore {unknown[0]}", where="listen", rule=f"one of {', '.join(labels)}")
        self._labels, self._on, self._off, self._ignored = labels, on, off, frozenset(ignored)
        self._last: deque[np.ndarray] = deque(maxlen=windows)
        self._active: set[int] = set()

    def hear(self, time_s: float, probabilities: np.ndarray) -> Iterator[Event]:
        """The events that begin with the window that ends at `time_s`; `probabilities` is [classes]."""
        self._last.append(probabilities)
        means = np.mean(self._last, axis=0)
        self._active = {index for index in self._active if means[index] >= self._off}
        for index, mean in enumerate(means.tolist()):
            if mean >= self._on and index not in self._active:
                self._active.add(index)
                if self._labels[index] not in self._ignored:
                    yield Event(time_s=time_s, label=self._labels[index], confidence=mean)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print events until the sound ends, or Ctrl-C; 4 where the bundle or the source is at fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle that takes sound and gives labels")
    parser.add_argument("source", help="a .wav file of the model's rate, or - for raw 16-bit mono samples on stdin")
    parser.add_argument("--hop", type=float, default=0.1, help="seconds from one window to the next (default 0.1)")
    parser.add_argument(
        "--window", type=float, default=1.0, help="seconds of a window, where the bundle leaves it open"
    )
    parser.add_argument("--on", type=float, default=0.8, help="probability at which an event begins (default 0.8)")
    parser.add_argument("--off", type=float, default=0.5, help="probability below which it ends (default 0.5)")
    parser.add_argument("--mean", type=int, default=3, help="windows whose mean counts (default 3)")
    parser.add_argument("--ignore", action="append", default=[], help="a label that is no event; may be repeated")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime (default 1)")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each event")
    options = parser.parse_args(arguments)
    try:
        for event in heard(options):
            text = {"time_s": event.time_s, "label": event.label, "confidence": event.confidence}
            print(json.dumps(text) if options.json else event, flush=True)
    except EdgekitError as error:
        print(error, file=sys.stderr)
        return EdgekitError.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def heard(options: argparse.Namespace) -> Iterator[Event]:
    """The events in a source."""
    model = load(options.bundle, threads=options.threads)
    before = model.preprocessing
    if not isinstance(before, SoundPreprocessing) or not model.labels:
        raise BundleError(
            f"preprocessing {'none' if before is None else before.kind}, {len(model.labels)} labels",
            where=str(options.bundle),
            rule="preprocessing log_mel or waveform, and labels",
            way_out="write it with them: `edgekit bundle --preprocessing FILE.json`",
        )
    rate = before.sample_rate
    length = before.samples or max(before.shortest, round(options.window * rate))
    hop = max(1, round(options.hop * rate))
    events = Hysteresis(model.labels, on=options.on, off=options.off, windows=options.mean, ignored=options.ignore)
    pieces = streamed(sys.stdin.buffer, hop) if options.source == "-" else cut(Path(options.source), rate, hop)
    for end, window in windows(pieces, length):
        answer = model.predict(window)
        if not isinstance(answer, Prediction):
            raise BundleError("no prediction", where=str(options.bundle), rule="postprocessing classification")
        yield from events.hear(end / rate, answer.probabilities)


def windows(pieces: Iterator[np.ndarray], length: int) -> Iterator[tuple[int, np.ndarray]]:
    """The last `length` samples after each piece, and how many there were so far; a short recording is one window."""
    kept, count = np.zeros(0, np.float32), 0
    for piece in pieces:
        kept, count = np.concatenate([kept, piece])[-length:], count + len(piece)
        if len(kept) == length:
            yield count, kept
    if 0 < count < length:
        yield count, kept


def cut(path: Path, rate: int, hop: int) -> Iterator[np.ndarray]:
    """A recording in pieces."""
    samples = read_wav(path, rate)
    return (samples[start : start + hop] for start in range(0, len(samples), hop))


def streamed(stream: BinaryIO, hop: int) -> Iterator[np.ndarray]:
    """Little-endian 16-bit samples as they come, in pieces of float32 in [-1, 1]."""
    while data := stream.read(2 * hop):
        yield np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / np.float32(32768)


if __name__ == "__main__":
    sys.exit(main())
