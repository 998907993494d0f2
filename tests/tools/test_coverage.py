"""tools/coverage.py: what it concludes from what it found, and three real networks through the whole."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        import coverage_study.catalogue
        import coverage_study.causes
        import coverage_study.page
        import coverage_study.stages
        import coverage_study.torch_pruning_runner

        yield coverage_study
    for name in [name for name in sys.modules if name.startswith("coverage_study")]:
        del sys.modules[name]


def record(name: str, source: str = "timm", **stages):
    states = {key.replace("_", " "): {"status": "passed", **value} for key, value in stages.items()}
    return {"key": f"{source}-{name}", "source": source, "name": name, "parameters": 100, "stages": states}


def test_the_page_holds_its_totals_against_the_bar(tool, monkeypatch):
    good = [record(f"n{i}", build={}, export={"exporter": "torch.export"}, prune={"parameters": 70}) for i in range(9)]
    bad = record("n9", build={}, export={"status": "failed", "reason": "out of processor time"})
    assert "| 95% pass export | 90.0% (9 of 10) | too few to tell |" in tool.page.page([*good, bad], 12)
    monkeypatch.setattr(tool.page, "FAMILIES", 10)
    page = tool.page.page([*good, bad], 12)
    assert "10 of 12 networks" in page
    assert "| 95% pass export | 90.0% (9 of 10) | **missed** |" in page
    assert "| 85% pass prune, with the proof | 90.0% (9 of 10) | holds |" in page
    assert "| no wrong result that no gate saw | 0 | holds |" in page
    assert "| export | limit of time or memory | 1: n9 |" in page
    assert "70% left" in page


def test_what_is_pruned_by_depth_says_so(tool):
    page = tool.page.page([record("net", build={}, prune={"parameters": 80, "removed": 4})], 1)
    assert "| 80% left |" in page
    assert "pruned by depth: 4 branches" in page


def test_a_silent_error_is_shown(tool):
    page = tool.page.page([record("net", build={}, export={"status": "unsound", "reason": "other values"})], 1)
    assert "| no wrong result that no gate saw | 1 | **missed** |" in page
    assert "timm-net, export: other values" in page


def test_the_catalogue_names_each_network_once(tool):
    found = tool.catalogue.subjects()
    assert len({each.key for each in found}) == len(found)
    assert sum(each.source == "timm" for each in found) >= 150
    assert sum(each.source == "transformers" for each in found) >= 100


def test_other_inputs_keep_what_tokens_and_masks_mean(tool):
    ids, mask = torch.tensor([[1, 7, 9, 8, 2], [1, 6, 2, 0, 0]]), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    batch = tool.stages.Batch((torch.zeros(2, 3),), {"ids": ids, "mask": mask}, None)
    seen = set()
    for seed in range(20):
        other = tool.stages._others(batch, seed)
        assert torch.equal(other.kwargs["mask"], mask)
        assert torch.equal(other.kwargs["ids"][ids < 5], ids[ids < 5])
        assert other.kwargs["ids"][ids >= 5].ge(5).all()
        assert other.kwargs["ids"].max() <= 9
        assert other.args[0].abs().sum() > 0
        seen.add(tuple(other.kwargs["ids"].flatten().tolist()))
    assert len(seen) > 10


def test_where_float64_gives_no_numbers_float32_is_compared(tool):
    class Narrow(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return y if y.dtype == torch.float32 else y * float("nan")

    example = tool.stages.Batch((torch.randn(4, 3),), {}, None)
    torch.manual_seed(0)
    one, other = Narrow(3, 2), Narrow(3, 2)
    tool.stages._check_alike(one, one, example, "the same")
    with pytest.raises(tool.stages.Unsound, match=r"another by .* of the largest output"):
        tool.stages._check_alike(one, other, example, "another")


def test_what_another_tool_removed_is_read_from_its_result(tool):
    runner = tool.torch_pruning_runner
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    for wrong in (False, True):
        smaller = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
        kept, read = torch.tensor([0, 2, 3, 5]), torch.tensor([0, 2, 3, 4] if wrong else [0, 2, 3, 5])
        with torch.no_grad():
            smaller[0].weight.copy_(model[0].weight[kept])
            smaller[0].bias.copy_(model[0].bias[kept])
            smaller[2].weight.copy_(model[2].weight[:, read])
            smaller[2].bias.copy_(model[2].bias)
        gone = dict(runner.removed(model, smaller))
        np.testing.assert_array_equal(gone["0.weight"][0], [1, 4])
        np.testing.assert_array_equal(gone["2.weight"][1], [1, 5] if wrong else [1, 4])
        apart = runner.difference(runner.masked(model, gone), smaller, torch.randn(7, 5))
        assert (apart > 1e-3) == wrong


def test_the_tools_own_mask_counts_what_is_left_in_norms(tool):
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(6))

        def forward(self, x):
            return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    torch.manual_seed(0)
    kept, gone = [0, 2, 3, 5], [1, 4]
    for norm in (nn.LayerNorm(6), nn.RMSNorm(6), Root()):
        model = nn.Sequential(nn.Linear(3, 6), norm, nn.Linear(6, 2))
        slices = {"0.weight": {0: gone}, "0.bias": {0: gone}, "2.weight": {1: gone}}
        slices |= {f"1.{name}": {0: gone} for name, _ in norm.named_parameters()}
        x = torch.randn(5, 3)
        with torch.no_grad():
            y = model[0](x)[:, kept]
            y = y - y.mean(1, keepdim=True) if isinstance(norm, nn.LayerNorm) else y
            y = norm.weight[kept] * y / ((y**2).sum(1, keepdim=True) / 4 + (getattr(norm, "eps", None) or 1e-6)) ** 0.5
            y = y + norm.bias[kept] if isinstance(norm, nn.LayerNorm) else y
            want = y @ model[2].weight[:, kept].T + model[2].bias
            twin = tool.stages.masked(model, slices)
            torch.testing.assert_close(copy.deepcopy(twin)(x), want, rtol=1e-4, atol=1e-5)
            plain = copy.deepcopy(model)
            plain[0].weight[gone], plain[0].bias[gone] = 0, 0
            assert (plain(x) - want).abs().max() > 1e-2


def test_the_usual_noise_is_that_of_the_sample_in_the_middle(tool):
    want = np.ones((5, 4), np.float32)
    have = want + np.array([[0.1], [0.1], [10.0], [0.1], [0.01]], np.float32)
    assert tool.stages._usual_db(want, have) == pytest.approx(20.0, abs=1e-4)
    assert tool.stages._usual_db(want, want) == 99.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_text_and_a_sound_network_of_transformers_go_through_the_whole(tmp_path, monkeypatch):
    for package in ("timm", "torchvision", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: it is no dependency of edgekit")
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setenv("PYTHONPATH", str(TOOLS.parent))
    from coverage import main

    assert main(["--only", "transformers-(gpt2|whisper)$", "--work", str(tmp_path), "--out", str(tmp_path)]) == 0
    for each in json.loads((tmp_path / "results.json").read_text()):
        assert {stage["status"] for stage in each["stages"].values()} == {"passed"}
        assert each["analysis"]["groups"] >= 4


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_networks_of_timm_go_through_the_whole(tmp_path, monkeypatch, capsys):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: it is no dependency of edgekit")
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setenv("PYTHONPATH", str(TOOLS.parent))
    from coverage import main

    work, out = tmp_path / "work", tmp_path / "out"
    only = "timm-(resnet10t|lcnet_035|vit_wee_patch16_reg1_gap_256)$"
    arguments = ["--only", only, "--work", str(work), "--out", str(out)]
    assert main(arguments) == 0
    found = json.loads((out / "results.json").read_text())
    assert len(found) == 3
    for each in found:
        assert {name: stage["status"] for name, stage in each["stages"].items()} == dict.fromkeys(
            ("build", "export", "prune", "export pruned", "int8"), "passed"
        )
    assert "3/3" in capsys.readouterr().out
    # The same command has nothing left to do.
    assert main(arguments) == 0
    assert "1/" not in capsys.readouterr().out
    # Nor has it with the results alone, as they are kept beside the page.
    assert main([*arguments[:2], "--work", str(tmp_path / "other"), "--out", str(out)]) == 0
    assert "1/" not in capsys.readouterr().out
