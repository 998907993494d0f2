"""Scaling images down as a decision of a compression."""

from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

from edgekit.compress import Budget, Settings, compress
from edgekit.workload import config_from, load_workload


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_where_it_is_allowed_it_is_priced_recovered_and_part_of_the_file(project, tmp_path):
    words = {"model": "model", "train": "train_data", "test": "test_data"}
    workload = load_workload(
        config_from({name: f"{project}:{function}" for name, function in words.items()}, folder=project.parent)
    )
    # The grid leaves no width to decide about.
    settings = Settings(
        resolutions=(16,), grid=64, max_rounds=1, recovery_epochs=1, latency_time_s=0.5, placement="rules"
    )
    report = compress(workload, Budget(max_drop=90.0, time_s=60.0), settings, out=tmp_path / "run")
    assert [choice["text"] for choice in report.choices[0]["choices"]] == ["input: 24x24 -> 16x16"]
    (done,) = report.rounds
    assert done["decisions"] == ["input: 24x24 -> 16x16"]
    row = report.row(report.verdict.chosen)
    assert row.stage.startswith("pruned-1")
    assert row.ratio_to_fp32.value > 1
    # An app feeds what it has fed.
    shape = ort.InferenceSession(row.file, providers=["CPUExecutionProvider"]).get_inputs()[0].shape
    assert shape[1:] == [3, 24, 24]
    assert "Resize" in [node.op_type for node in onnx.load(Path(row.file)).graph.node]
