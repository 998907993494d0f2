"""The chosen network for further kinds of CPU: which file each gets, by ONNX Runtime and by the bundle on disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from edgekit.compress import Budget, Settings, compress, finish, measuring, others, stages
from edgekit.device.variants import rank
from edgekit.device.verify import open_bundle
from edgekit.quantize.targets import CpuTarget
from edgekit.workload import WorkloadConfig, load_workload
from tests.answers import right

KINDS = get_args(CpuTarget)
BUDGET = Budget(max_drop=20.0, time_s=60.0)


@pytest.fixture(scope="module")
def workload(project):
    names = {"model": "model", "train": "train_data", "test": "test_data"}
    return load_workload(WorkloadConfig(**{what: f"{project}:{name}" for what, name in names.items()}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All tests go on in one run's folder, and so quantize but once."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def run(workload, folder):
    def go():
        settings = Settings(also=KINDS, max_rounds=0, latency_time_s=0.5, robustness_time_s=0)
        return compress(workload, BUDGET, settings, out=folder)

    return go


def activations(path):
    """Types of what the graph's quantizers give."""
    import onnx

    graph = onnx.load(path).graph
    zeros = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2}
    kinds = {each.name: each.data_type for each in graph.initializer}
    return {onnx.TensorProto.DataType.Name(kinds[name]) for name in zeros if name in kinds}


def test_each_kind_gets_an_int8_file_of_its_own_with_figures_of_the_test_split(run, workload, folder):
    report = run()
    if report.verdict.chosen == "fp32":
        pytest.skip("int8 is not faster than fp32 on this processor: there is nothing to make for others")
    here = report.settings["target"]
    assert [each["target"] for each in report.others] == [kind for kind in KINDS if kind != here]
    original = right(report.row("fp32").file, workload.splits.test, "any")
    for each in report.others:
        found = right(each["file"], workload.splits.test, each["target"])
        assert each["metric"]["value"] == pytest.approx(found.mean())
        assert each["drop"]["value"] == pytest.approx((original - found).mean())
        assert each["broken"] == []
        # ARM's kernels take signed activations, those of x86 unsigned ones.
        assert activations(each["file"]) == ({"INT8"} if each["target"] == "arm64" else {"UINT8"})
    manifest = open_bundle(report.bundle).manifest
    for isa in KINDS:
        taken = rank(manifest.variants, provider=None, available=["CPUExecutionProvider"], isa=isa)[0].variant
        assert (taken.target, taken.precision) == (isa, "int8")
        if isa != here:
            (row,) = [each for each in report.others if each["target"] == isa]
            assert (Path(report.bundle) / taken.file).read_bytes() == Path(row["file"]).read_bytes()
    page = (folder / "report.html").read_text()
    card = (Path(report.bundle) / "README.md").read_text()
    for each in report.others:
        assert each["sha256"][:12] in page
        assert each["target"] in card
    again = run()
    assert json.loads(json.dumps(again.others)) == json.loads((folder / "report.json").read_text())["others"]


def test_a_kind_whose_file_breaks_the_budget_gets_the_fp32_file(run, workload, monkeypatch):
    plain = others.quantized_file
    rarest = np.bincount([int(y) for _, y in workload.splits.selection], minlength=4).argmin()

    def ruined(run, stage, source, *, target):
        """For ARM a file that always answers the rarest class."""
        import onnx

        file = plain(run, stage, source, target=target)
        if target != "arm64":
            return file
        graph = onnx.load(file.path)
        bias = next(each for each in graph.graph.initializer if each.name == "head.bias.int32")
        values = np.where(np.arange(4) == rarest, 2**24, 0).astype(np.int32)
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        path = file.path.with_name("ruined.onnx")
        onnx.save(graph, path)
        return replace(file, path=path, sha256="0" * 64)

    monkeypatch.setattr(others, "quantized_file", ruined)
    monkeypatch.setattr(stages, "IMPROVE_SHARE", 10.0)  # No time for the ladder.
    report = run()
    if report.verdict.chosen == "fp32":
        pytest.skip("int8 is not faster than fp32 on this processor: there is nothing to make for others")
    row = report.others[-1]
    assert (row["target"], row["file"]) == ("arm64", None)
    assert row["why"].startswith("on the selection split the int8 file breaks drop ")
    manifest = open_bundle(report.bundle).manifest
    taken = {
        isa: rank(manifest.variants, provider=None, available=["CPUExecutionProvider"], isa=isa)[0].variant.precision
        for isa in KINDS
    }
    assert taken == {"x86-vnni": "int8", "x86-avx2": "int8", "arm64": "fp32"}
    assert (Path(report.bundle) / "models/model/cpu-fp32/model.onnx").read_bytes() == Path(
        report.row("fp32").file
    ).read_bytes()
    assert report.verdict.holds


def test_where_fp32_is_chosen_every_kind_gets_it(run, monkeypatch):
    monkeypatch.setattr(finish, "choose", lambda candidates, _: candidates[0])
    report = run()
    assert {each["file"] for each in report.others} == {None}
    assert all("every processor runs" in each["why"] for each in report.others)
    assert [each.name for each in open_bundle(report.bundle).manifest.variants] == ["cpu-fp32"]


def test_a_file_that_breaks_the_budget_on_test_breaks_the_verdict(run, folder, monkeypatch):
    for final in (folder / "stages").glob("final-*"):
        shutil.rmtree(final)
    row = {"target": "arm64", "why": "", "file": None, "broken": ["drop 9.00 points > 1.00 points"]}
    monkeypatch.setattr(measuring, "tested", lambda *_: [row])
    report = run()
    assert not report.verdict.holds
    assert report.verdict.broken == ("arm64: drop 9.00 points > 1.00 points",)
