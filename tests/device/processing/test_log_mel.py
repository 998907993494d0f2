from __future__ import annotations

import json
import math
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from scipy import signal

from edgekit.device import LogMelPreprocessing
from edgekit.device.processing.sound import read_wav
from edgekit.errors import DataError

RANDOM = np.random.default_rng(0)
SOUND = (0.3 * np.sin(np.arange(900) * 0.4) + 0.1 * RANDOM.standard_normal(900)).astype(np.float32)
SMALL = {"sample_rate": 8000, "window": 64, "hop": 24, "mels": 7}


def mel_of(hz, scale):
    if scale == "htk":
        return 2595 * math.log10(1 + hz / 700)
    return 3 * hz / 200 if hz < 1000 else 15 + math.log(hz / 1000) / (math.log(6.4) / 27)


def weight(prepare, band, hz):
    """The triangle of one band at one frequency: by its corners, found by bisection of the scale."""

    def hz_of(mel):
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if mel_of(middle, prepare.mel_scale) < mel else (low, middle)
        return low

    first, last = mel_of(prepare.low_hz, prepare.mel_scale), mel_of(prepare.high_hz, prepare.mel_scale)
    left, peak, right = (hz_of(first + (last - first) * (band + i) / (prepare.mels + 1)) for i in range(3))
    if not left < hz < right:
        return 0.0
    height = (hz - left) / (peak - left) if hz <= peak else (right - hz) / (right - peak)
    return height * (2 / (right - left) if prepare.norm else 1)


def by_sums(prepare, samples):
    """The definition, with sums instead of a fast transform."""
    n = prepare.window
    symmetric = prepare.window_function == "hann_symmetric"
    window = signal.get_window("hamming" if prepare.window_function == "hamming" else "hann", n, fftbins=not symmetric)
    length, start = n, 0
    if prepare.centre:
        half, length = prepare.fft // 2, prepare.fft
        start = (prepare.fft - n) // 2
        samples = np.concatenate([samples[half:0:-1], samples, samples[-2 : -half - 2 : -1]])
    rows = []
    for at in range(0, len(samples) - length + 1, prepare.hop):
        frame = samples[at + start : at + start + n] * window
        energies = []
        for k in range(prepare.fft // 2 + 1):
            angle = 2 * math.pi * k * np.arange(n) / prepare.fft
            size = math.hypot(float(frame @ np.cos(angle)), float(frame @ np.sin(angle)))
            energies.append(size**prepare.power)
        row = []
        for band in range(prepare.mels):
            total = sum(
                weight(prepare, band, k * prepare.sample_rate / prepare.fft) * energy
                for k, energy in enumerate(energies)
            )
            floored = total + prepare.floor if prepare.floor_by == "add" else max(total, prepare.floor)
            log = math.log(floored) if prepare.log == "natural" else math.log10(floored)
            row.append((log - prepare.mean) / prepare.std)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fft": 80, "window_function": "hann_symmetric", "power": 1},
        {"window_function": "hamming", "log": "log10", "floor": 1e-10, "floor_by": "max", "mean": -4.0, "std": 3.0},
        {"fft": 75, "centre": True, "mel_scale": "slaney", "norm": "slaney", "low_hz": 20.0},
        {"fft": 100, "centre": True, "high_hz": 3000.0},
    ],
)
def test_features_are_those_of_the_definition(options):
    prepare = LogMelPreprocessing(**SMALL, **options)
    got = prepare.apply(SOUND[:300])
    expected = by_sums(prepare, SOUND[:300].astype(np.float64))
    assert got.dtype == np.float32
    assert got.shape == (1, *expected.shape)
    assert prepare.frames(300) == len(expected)
    assert np.allclose(got[0], expected, atol=2e-6, rtol=1e-6)


def test_centred_spectra_are_scipys():
    """Magnitudes of a filter per bin: bands so narrow that each holds one bin's peak."""
    prepare = LogMelPreprocessing(**{**SMALL, "fft": 64}, centre=True)
    _, _, spectrum = signal.stft(
        np.pad(SOUND.astype(np.float64), 32, mode="reflect"), 8000, "hann", 64, 64 - 24, boundary=None, padded=False
    )
    energies = np.abs(spectrum * 32) ** 2  # scipy divides by the window's sum
    expected = np.log(prepare.filters() @ energies + 1e-5).T
    assert np.allclose(prepare.apply(SOUND)[0], expected[: prepare.frames(900)], atol=1e-5)


def test_the_reference_project_computes_the_same(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "tools" / "reference"))
    from keywords import FRAMES, HOP, MELS, RATE_HZ, WINDOW, log_mel

    prepare = LogMelPreprocessing(
        sample_rate=RATE_HZ,
        samples=WINDOW + HOP * (FRAMES - 1),
        window=WINDOW,
        hop=HOP,
        mels=MELS,
        window_function="hann_symmetric",
        mean=-4.0,
        std=4.0,
    )
    for length in (3000, 9000):
        pcm = (RANDOM.standard_normal(length) * 3000).astype(np.int16)
        assert np.allclose(prepare.apply(pcm)[0], log_mel(pcm / np.float32(32768)), atol=1e-4)
    sys.modules.pop("keywords", None)


def test_layouts_lengths_and_kinds_of_samples():
    prepare = LogMelPreprocessing(**SMALL)
    plain = prepare.apply(SOUND)
    for layout, shape in (("TF", (1, 35, 7)), ("FT", (1, 7, 35)), ("1TF", (1, 1, 35, 7)), ("1FT", (1, 1, 7, 35))):
        got = LogMelPreprocessing(**SMALL, layout=layout).apply(SOUND)
        assert got.shape == shape
        assert np.array_equal(got.reshape(plain.shape) if layout.endswith("TF") else got.reshape(7, 35).T[None], plain)
    cut = LogMelPreprocessing(**SMALL, samples=400)
    assert np.array_equal(cut.apply(SOUND), prepare.apply(SOUND[:400]))
    assert np.array_equal(cut.apply(SOUND[:300]), prepare.apply(np.pad(SOUND[:300], (0, 100))))
    assert prepare.apply(SOUND[:5]).shape == (1, 1, 7)
    assert LogMelPreprocessing(**SMALL, fft=256, centre=True).apply(SOUND[:5]).shape == (1, 1 + 129 // 24, 7)
    pcm = (SOUND * 20000).astype(np.int16)
    assert np.allclose(prepare.apply(pcm), prepare.apply((pcm / 32768).astype(np.float64)), atol=1e-6)


def test_long_recordings_go_in_parts():
    prepare = LogMelPreprocessing(**SMALL)
    long = np.tile(SOUND, 40)
    assert np.array_equal(prepare.apply(long)[0, 1200:1210], prepare.apply(long[1200 * 24 :])[0, :10])


def save(path, frames, width, channels=1, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(frames)
    return path


def test_wav_files(tmp_path):
    values = np.array([0, 1, -1, 100, -(2**15), 2**15 - 1])
    path = tmp_path / "a.wav"
    assert np.allclose(read_wav(save(path, values.astype("<i2").tobytes(), 2), 8000), values / 2**15)
    assert np.allclose(read_wav(save(path, (values.astype("<i4") << 16).tobytes(), 4), 8000), values / 2**15)
    three = b"".join(int(value << 8).to_bytes(3, "little", signed=True) for value in values.tolist())
    assert np.allclose(read_wav(save(path, three, 3), 8000), values / 2**15)
    assert np.allclose(read_wav(save(path, bytes([0, 128, 255]), 1), 8000), [-1, 0, 127 / 128])
    stereo = np.array([[100, 300], [-5, 5]], "<i2")
    assert np.allclose(read_wav(save(path, stereo.tobytes(), 2, 2), 8000), [200 / 2**15, 0])
    prepare = LogMelPreprocessing(**SMALL)
    pcm = (SOUND * 20000).astype("<i2")
    assert np.array_equal(prepare.apply(save(path, pcm.tobytes(), 2)), prepare.apply(pcm))


def test_sound_that_is_not_what_the_model_takes(tmp_path):
    prepare = LogMelPreprocessing(**SMALL)
    with pytest.raises(DataError) as caught:
        prepare.apply(save(tmp_path / "cd.wav", bytes(8), 2, 2, 44100))
    assert caught.value.problem == "44100 Hz"
    assert caught.value.way_out == "ffmpeg -i cd.wav -ac 1 -ar 8000 -c:a pcm_s16le cd-8000.wav"
    (tmp_path / "no.wav").write_bytes(b"RIFF....WAVE")
    for name in ("no.wav", "absent.wav"):
        with pytest.raises(DataError, match="cannot read the sound"):
            prepare.apply(tmp_path / name)
    for samples in (np.zeros((2, 100), np.float32), np.zeros(0), np.zeros(9, np.int64), np.array([0.0, np.nan])):
        with pytest.raises(DataError, match="where: sound"):
            prepare.apply(samples)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sample_rate": 0}, "b.pre.sample_rate"),
        ({"window": 1}, "b.pre.window"),
        ({"fft": 63}, "got 63\n  where: b.pre.fft\n  rule: an integer from 64"),
        ({"fft": None}, "b.pre.fft"),
        ({"hop": 0}, "b.pre.hop"),
        ({"samples": 63}, "b.pre.samples\n  rule: null or an integer from 64"),
        ({"centre": 1}, "b.pre.centre"),
        ({"window_function": "kaiser"}, "b.pre.window_function"),
        ({"power": 3}, "b.pre.power"),
        ({"mels": 10**6}, "b.pre.mels"),
        ({"high_hz": 4001}, "b.pre.high_hz"),
        ({"low_hz": 4000.0}, "b.pre.low_hz"),
        ({"floor": 0}, "b.pre.floor"),
        ({"norm": "l2"}, "b.pre.norm"),
        ({"std": 0}, "b.pre.std"),
        ({"layout": "NCHW"}, "b.pre.layout"),
        ({"loudness": 1}, "unknown key 'loudness'"),
    ],
)
def test_refuses_fields_out_of_range(change, text):
    whole = LogMelPreprocessing(**SMALL).to_dict()
    assert LogMelPreprocessing.from_dict(json.loads(json.dumps(whole))) == LogMelPreprocessing(**SMALL)
    with pytest.raises(DataError) as caught:
        LogMelPreprocessing.from_dict({**whole, **change}, "b.pre")
    assert text in str(caught.value)
