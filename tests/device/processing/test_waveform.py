"""Samples as a network's input: against the formula, and against transformers' own feature extractor."""

import json
import wave

import numpy as np
import pytest

from edgekit.device import WaveformPreprocessing
from edgekit.errors import DataError

SOUND = (0.05 + 0.2 * np.random.default_rng(0).standard_normal(500)).astype(np.float32)


def test_samples_are_cut_filled_and_laid_out():
    assert WaveformPreprocessing(sample_rate=8000).apply(SOUND).tolist() == [SOUND.tolist()]
    cut = WaveformPreprocessing(sample_rate=8000, samples=300, layout="1T").apply(SOUND)
    assert cut.dtype == np.float32
    assert cut.tolist() == [[SOUND[:300].tolist()]]
    filled = WaveformPreprocessing(sample_rate=8000, samples=600).apply(SOUND)
    assert filled.tolist() == [[*SOUND.tolist(), *[0.0] * 100]]


@pytest.mark.parametrize("samples", [None, 300, 800])
def test_normalized_recordings_have_mean_zero_and_variance_one(samples):
    prepare = WaveformPreprocessing(sample_rate=8000, samples=samples, normalize="recording")
    found = prepare.apply(SOUND)[0].astype(np.float64)
    kept = min(samples or 500, 500)
    assert abs(found[:kept].mean()) < 1e-7
    assert found[:kept].std() == pytest.approx(1, abs=1e-5)
    assert not found[kept:].any()
    whole = WaveformPreprocessing(sample_rate=8000, samples=samples, normalize="input").apply(SOUND)[0]
    assert abs(whole.astype(np.float64).mean()) < 1e-7
    assert whole.astype(np.float64).std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("samples", [300, 500, 800])
def test_it_is_what_transformers_does(masked, samples):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=16000, do_normalize=True, return_attention_mask=masked, padding_value=0.0
    )
    wanted = theirs(
        SOUND, sampling_rate=16000, padding="max_length", max_length=samples, truncation=True, return_tensors="np"
    )["input_values"]
    of = "recording" if masked else "input"
    prepare = WaveformPreprocessing(sample_rate=16000, samples=samples, normalize=of)
    np.testing.assert_allclose(prepare.apply(SOUND), wanted, atol=2e-6)


def test_files_and_16_bit_samples(tmp_path):
    pcm = (SOUND * 20000).astype(np.int16)
    path = tmp_path / "s.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, len(pcm), "NONE", ""))
        file.writeframes(pcm.astype("<i2").tobytes())
    prepare = WaveformPreprocessing(sample_rate=8000)
    np.testing.assert_allclose(prepare.apply(path), (pcm / 32768)[None], atol=1e-7)
    assert np.array_equal(prepare.apply(path), prepare.apply(pcm))
    with pytest.raises(DataError, match="the model takes 16000 Hz"):
        WaveformPreprocessing(sample_rate=16000).apply(path)


@pytest.mark.parametrize("sound", [np.zeros((2, 9), np.float32), np.zeros(0, np.float32), np.array([0.1, np.nan])])
def test_what_is_no_recording_is_refused(sound):
    with pytest.raises(DataError, match="samples \\[n\\] of one channel"):
        WaveformPreprocessing(sample_rate=8000).apply(sound)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sample_rate": 0}, "sample_rate"),
        ({"samples": 0}, "samples"),
        ({"normalize": "all"}, "one of recording, input"),
        ({"layout": "FT"}, "one of T, 1T"),
        ({"window": 3}, "unknown key"),
    ],
)
def test_json_is_read_strictly(change, match):
    whole = WaveformPreprocessing(sample_rate=8000, samples=9, normalize="input").to_dict()
    assert WaveformPreprocessing.from_dict(json.loads(json.dumps(whole))).to_dict() == whole
    with pytest.raises(DataError, match=match):
        WaveformPreprocessing.from_dict({**whole, **change}, "b.pre")
