"""Recurrent and attention reference networks, untrained: half of them goes, and what is left exports and quantizes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgekit import prune as room
from edgekit.export import export
from edgekit.quantize import quantize
from edgekit.workload import Batch

FOLDER = Path(__file__).parents[2] / "tools" / "reference"


@pytest.fixture(scope="module")
def networks():
    """Small networks of each family with an example, its folder importable while they are imported."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        keywords, vit, text = (importlib.import_module(n) for n in ("keywords", "networks.vit", "networks.text"))
        patch.setattr(keywords, "FRAMES", 8)
        torch.manual_seed(0)
        sound, tokens = torch.randn(4, 8, 40), torch.randint(0, 50, (4, 9))
        yield {
            "lstm": (keywords.KeywordLSTM(16), sound),
            "gru": (keywords.KeywordGRU(8), sound),
            "transformer": (keywords.KeywordTransformer(16, 2, 4), sound),
            "vit": (vit.ViT(8, 16, 2, 4, 2), torch.randn(4, 3, 8, 8)),
            "text": (text.TextEncoder(50, 10, tokens=12, width=16, layers=2), tokens),
        }
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "groups", "blocks"),
    [
        ("lstm", {"lstm": 16}, ["lstm.layer1"]),
        ("gru", {"gru": 8}, []),
        (
            "transformer",
            {
                "embed": 16,
                **{f"encoder.layers.{i}.{part}": n for i in (0, 1) for part, n in (("self_attn", 4), ("linear1", 64))},
            },
            [f"encoder.layers.{i}.{part}" for i in (0, 1) for part in ("self_attn", "linear2")],
        ),
        (
            "vit",
            {
                "patches": 16,
                **{f"blocks.{i}.{part}": n for i in (0, 1) for part, n in (("attn.qkv", 4), ("mlp.0", 32))},
            },
            [f"blocks.{i}.{part}" for i in (0, 1) for part in ("attn", "mlp")],
        ),
        (
            "text",
            {
                "word_embeddings": 16,
                **{f"layers.{i}.{part}": n for i in (0, 1) for part, n in (("q_lin", 4), ("ffn.0", 64))},
                "pre_classifier": 16,
            },
            [f"layers.{i}.{part}" for i in (0, 1) for part in ("out_lin", "ffn")],
        ),
    ],
)
@pytest.mark.slow
def test_half_of_a_reference_network(networks, tmp_path, name, groups, blocks):
    net, x = networks[name]
    example = Batch((x,), {}, None)
    coupling = room.analyse(net.eval(), example)
    assert {group.name: len(group) for group in coupling.groups} == groups
    assert [block.name for block in coupling.blocks] == blocks
    generator = torch.Generator().manual_seed(0)
    gone = blocks[: len(blocks) // 2]
    inside = room.inside(coupling)
    kept = {
        group: torch.randperm(size, generator=generator)[: size // 2].tolist()
        for group, size in groups.items()
        if inside.get(group) not in {f"block {block}" for block in gone}
    }
    pruned = room.prune(net, example, room.make_plan(coupling, kept, gone)).model
    done = export(pruned, example, tmp_path / "net.onnx")
    have = run(done.path, x)
    np.testing.assert_allclose(have, pruned(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    # A sublayer that went leaves nothing in the file.
    operators = [node.op_type for node in onnx.load(done.path).graph.node]
    assert operators.count("Softmax") == (1 if blocks and name != "lstm" else 0)
    feeds = [{done.spec.inputs[0].name: x.numpy()}] * 4
    quantized = quantize(done.path, feeds, tmp_path / "int8.onnx", spec=done.spec, scheme="dynamic")
    drift = np.abs(run(quantized.path, x) - have).max()
    assert 0 < drift < 0.1 * np.abs(have).max()


def run(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
