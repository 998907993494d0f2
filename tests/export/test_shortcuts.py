"""Tables that are made once for all exports: what is exported with them, and that nobody else sees them."""

from __future__ import annotations

import io
import warnings

import onnx
import pytest
import torch
from torch import nn

from edgekit.export import shortcuts as room
from edgekit.export.shortcuts import shortcuts

registration = pytest.importorskip("torch.onnx._internal.exporter._registration", reason="another PyTorch")


def exported(**options):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU()).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(net, (torch.ones(2, 3, 8, 8),), dynamo=True, verbose=False, **options)
    program.save(buffer)
    return [node.op_type for node in onnx.load_from_string(buffer.getvalue()).graph.node]


def test_an_export_is_the_same_with_and_without():
    plain = exported()
    with shortcuts():
        assert exported() == plain
        assert exported() == plain


def test_they_are_made_once(monkeypatch):
    exported()
    with shortcuts():
        exported()
    made = registration.ONNXRegistry._register
    monkeypatch.setattr(registration.ONNXRegistry, "_register", lambda *_: pytest.fail("made again"))
    with shortcuts():
        exported()
    monkeypatch.setattr(registration.ONNXRegistry, "_register", made)
    calls = []
    monkeypatch.setattr(registration.ONNXRegistry, "_register", lambda *words: (calls.append(1), made(*words)))
    exported()
    assert len(calls) > 100, "outside nothing is kept"


def test_what_one_export_adds_is_not_there_for_the_next():
    from onnxscript import opset18

    def doubled(x, approximate="none"):  # noqa: ARG001 - the operator's own argument
        return opset18.Mul(x, opset18.Constant(value_float=2.0))

    own = {"custom_translation_table": {torch.ops.aten.gelu.default: doubled}}
    plain, theirs = exported(), exported(**own)
    if theirs == plain:
        pytest.skip(f"PyTorch {torch.__version__} keeps its own translation of this operator")
    with shortcuts():
        assert exported() == plain
        assert exported(**own) == theirs
        assert exported() == plain


def test_all_is_as_before_afterwards_though_an_export_fails():
    before = vars(registration.ONNXRegistry)["from_torchlib"], room._decomp.create_onnx_friendly_decomposition_table
    with pytest.raises(RuntimeError, match="stopped"), shortcuts():
        raise RuntimeError("stopped")
    after = vars(registration.ONNXRegistry)["from_torchlib"], room._decomp.create_onnx_friendly_decomposition_table
    assert after == before


@pytest.mark.parametrize("lacking", ["_registration", "_decomp"])
def test_with_another_pytorch_nothing_is_kept(lacking, monkeypatch):
    monkeypatch.setattr(room, lacking, None)
    with shortcuts():
        assert exported()
