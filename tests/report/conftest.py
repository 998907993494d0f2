"""Reports of made-up runs, and a browser to look at their pages."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.report import read_run
from edgekit.report.page import write_page
from tests.required import absent


def estimate(value, half=0.5, n=400):
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def stage(name, *, metric, drop, ms, ratio, size):
    return {
        "stage": name,
        "file": f"{name}.onnx",
        "sha256": f"{abs(hash(name)) % 16**8:064x}" if name != "fp32" else "f" * 64,
        "metric": estimate(metric),
        "drop": estimate(drop, 0.25) if drop is not None else estimate(0.0, 0.0),
        "agreement": estimate(97.25),
        "fixed": 3,
        "broken": 5,
        "latency": estimate(ms, 0.01),
        "latency_p90_ms": 1.25 * ms,
        "latency_p99_ms": None,
        "ratio_to_fp32": estimate(ratio, 0.02),
        "ratio_to_int8": None,
        "speed_verdict": "faster",
        "size_bytes": size,
        "parameters": 269_722,
        "macs": 40_551_040,
        "load_ms": 9.5,
        "first_ms": 1.5,
        "peak_bytes": 67_403_776,
        "nodes": {"optimized": {"Conv": 19, "Gemm": 1}},
        "details": {},
    }


def candidate(name, number, ms, drop, size):
    return {
        "file": name,
        "round": number,
        "selection_drop": estimate(drop, 0.3),
        "selection_latency_ms": ms,
        "size_bytes": size,
    }


def made_up():
    """A report as `report.json` holds it, with everything that a report of this version has."""
    machine = {
        "cpu": {"model": "Some CPU", "cores": 2, "flags": ["avx2"], "load_average": [0.5, 0.4, 0.3], "governor": None},
        "memory_bytes": 16_000_000_000,
        "versions": {"onnxruntime": "1.28.0"},
    }
    candidates = [
        candidate("fp32", 0, 1.5, 0.0, 1_000_000),
        candidate("int8", 0, 0.75, 0.1, 300_000),
        candidate("pruned-1-int8", 1, 0.5, 0.4, 250_000),
    ]
    choices = [
        {"subject": "block a", "text": "remove block a", "damage": 0.1, "gain_ms": 0.2, "gain_bytes": 50_000},
        {"subject": "b", "text": "b: 32 -> 16", "damage": 0.4, "gain_ms": 0.1, "gain_bytes": 9_000},
        {"subject": "b", "text": "b: 32 -> 8", "damage": 2.5, "gain_ms": 0.15, "gain_bytes": 12_000},
        {"subject": "c", "text": "c: 32 -> 16", "damage": -0.01, "gain_ms": -0.01, "gain_bytes": -10},
    ]
    rungs = [{"choices": ["remove block a"], "damage": 0.1, "predicted_ratio": 1.5, "predicted_bytes": 250_000}]
    return {
        "format": "edgekit-report",
        "version": "1.0",
        "name": "net",
        "metric": "top-1 accuracy",
        "unit": "points",
        "verdict": {"holds": True, "chosen": "pruned-1-int8", "broken": [], "text": "budget holds with pruned-1-int8"},
        "budget": {"max_drop_points": 0.5, "max_latency_ms": 0.625, "max_size_bytes": 260_000, "time_s": 60.0},
        "settings": {"target": "x86-vnni", "threads": 1, "providers": ["cpu"], "seed": 0, "max_rounds": 4},
        "stages": [
            stage("fp32", metric=88.125, drop=None, ms=1.5, ratio=1.0, size=1_000_000),
            stage("int8", metric=88.0, drop=0.125, ms=0.75, ratio=2.0, size=300_000),
            stage("pruned-1-int8", metric=87.75, drop=0.375, ms=0.5, ratio=3.0, size=250_000),
        ],
        "providers": [{"provider": "cpu", "status": "measured: the table above", "detail": {}}],
        "splits": {"test": {"n": 400, "sha256": "ab" * 32, "source": "net.py:test_data"}},
        "choices": [{"choices": choices, "rungs": rungs, "screened": [], "skipped": [], "baseline_ms": 0.75}],
        "rounds": [
            {
                "round": 1,
                "rung": 0,
                "selection": {"file": "pruned-1-int8", "drop": estimate(0.4), "latency_ms": 0.5, "size_bytes": 250_000},
                "holds_with_margin": True,
                "decisions": ["a: removed"],
            }
        ],
        "candidates": candidates,
        "front": [{"name": each["file"]} for each in candidates],
        "notes": ["a note"],
        "environment": {"before": machine, "after": {**machine, "cpu": {**machine["cpu"], "load_average": [0.7]}}},
        "seconds": {"export-fp32": 2.0, "recovering-round-1": 30.0, "final": 8.0},
        "bundle": "runs/net.edgekit",
        "report": "runs/report.json",
        "next_commands": ["edgekit inspect runs/net.edgekit"],
    }


WORKLOAD = {
    "model": "net.py:model",
    "train": "net.py:train_data",
    "test": "net.py:test_data",
    "task": "classification",
    "labels": ["cat", "dog"],
    "image_size": [32, 48],
    "mean": [0.5],
    "std": [0.25],
    "folder": "/some where",
    "seed": 3,
    "selection_from": "train",
}


def raw(report):
    rng = np.random.default_rng(0)
    return {
        row["stage"]: {
            "p50_ms": row["latency"],
            "p90_ms": row["latency_p90_ms"],
            "p99_ms": None,
            "samples_ms": (row["latency"]["value"] * rng.lognormal(0, 0.05, 200)).tolist(),
        }
        for row in report["stages"]
    }


def save(folder, report, *, whole=True):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report))
    if whole:
        (folder / "latency-raw.json").write_text(json.dumps(raw(report)))
        (folder / "front.json").write_text(json.dumps({"workload": WORKLOAD}))
    return folder


@pytest.fixture(scope="session")
def make():
    """What makes runs, for tests that want others."""
    return SimpleNamespace(estimate=estimate, report=made_up, raw=raw, save=save, workload=WORKLOAD)


@pytest.fixture
def report():
    return made_up()


@pytest.fixture
def run(report, tmp_path):
    return read_run(save(tmp_path / "run", report))


@pytest.fixture(scope="session")
def browser():
    room = runpy.run_path(str(Path(__file__).parent / "browser.py"))
    chromium = room["program"]()
    if chromium is None:
        absent("CHROMIUM", "no Chromium here (chromium, chromium-browser, google-chrome): pages are not looked at")
    found = room["Browser"](chromium)
    yield found
    found.close()


@pytest.fixture(scope="session")
def saved_page(tmp_path_factory):
    return write_page(read_run(save(tmp_path_factory.mktemp("page") / "run", made_up())))
