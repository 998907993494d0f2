"""Latencies of candidates, measured here."""

from types import SimpleNamespace

import pytest

from edgekit.compress import Settings, speed
from edgekit.progress import silent


@pytest.fixture
def table(monkeypatch):
    """A measurement in which the first file takes 2 ms; the options that it was called with."""
    asked = {}

    def measured(paths, feeds, **options):
        asked.update(options, sizes=[path.stat().st_size for path in paths.values()], feeds=feeds)
        return {
            name: SimpleNamespace(
                latency=SimpleNamespace(p50=SimpleNamespace(value=2.0 + index)), ratio=SimpleNamespace(value=1 + index)
            )
            for index, name in enumerate(paths)
        }

    monkeypatch.setattr(speed, "latency_table", measured)
    return asked


@pytest.mark.parametrize(("count", "time_s", "warmup_s"), [(4, 1.6, 0.1), (2, 6.0, 0.2)])
def test_warming_up_is_part_of_the_time_for_a_measurement(table, count, time_s, warmup_s):
    """A quarter of it, and no more than a fifth of a second for each file."""
    files = {str(index): b"x" * index for index in range(count)}
    speed.Here(Settings(threads=2), silent).ms(files, {}, time_s=time_s)
    assert table["warmup_s"] == pytest.approx(warmup_s)
    assert table["time_s"] + count * table["warmup_s"] == pytest.approx(time_s)
    assert table["threads"] == 2
    assert table["sizes"] == list(range(count))


def test_a_file_is_as_fast_as_its_paired_ratio_to_the_baseline_says(table):
    """Its own median drifts with the machine; the ratio does not."""
    found = speed.Here(Settings(), silent).ms({"base": b"", "twice": b"", "three times": b""}, {}, time_s=1.0)
    assert found == pytest.approx({"base": 2.0, "twice": 1.0, "three times": 2 / 3})
    assert table["baseline"] == "base"


def test_what_was_measured_counts_on_a_processor_of_the_same_name_and_instructions(monkeypatch):
    here = speed.Here(Settings(), silent)
    keys = []
    for isa in ("x86-vnni", "x86-avx2"):
        monkeypatch.setattr("edgekit.device.environment.isa_target", lambda isa=isa: isa)
        keys.append(here.key)
    assert keys[0] != keys[1]
    assert here.key == keys[1]
