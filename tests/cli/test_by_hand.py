"""Each stage by itself, from what the last one wrote; every figure is checked by other means."""

import hashlib
import json
import tomllib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from edgekit.device import isa_target
from edgekit.device.profile import shipped_profile

# A bundle says so where its int8 file was made for another processor than this one; the figures are the same.
pytestmark = pytest.mark.filterwarnings("ignore:.*was made for:UserWarning")


def count(model):
    return sum(value.numel() for value in model.parameters())


def macs(width):
    """Of the project's network, by the formula for convolutions; all of them give maps of 8 x 8."""
    return 8 * 8 * 9 * (3 * width + 2 * width * width) + 4 * width


def kilobytes(path):
    return f"{path.stat().st_size / 1e3:.1f} kB"


def small(project, folder):
    """The user's own class in the narrow width, with the weights that a stage wrote."""
    net = project.source.Net(16)
    net.load_state_dict(load_file(folder / "weights.safetensors"))
    return net.eval()


def test_a_dry_run_says_what_can_go_and_writes_nothing(done, project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = done("prune", *project.words, "--dry-run").out
    for line in ("2 channel groups", "1 residual blocks", "stem: 32 -> 16 channels", "block.first: 32 -> 16 channels"):
        assert line in text
    about = done("prune", *project.words, "--dry-run", "--json").json
    assert {row["group"]: (row["before"], len(row["kept"])) for row in about["plan"]["narrowings"]} == {
        "stem": (32, 16),
        "block.first": (32, 16),
    }
    assert list(tmp_path.iterdir()) == []


def test_prune_leaves_plan_and_weights_and_prints_the_proof(pruned, project):
    assert sorted(path.name for path in pruned.folder.iterdir()) == ["plan.json", "weights.safetensors"]
    assert "proof: equals the masked original to " in pruned.answer.out
    assert f"wrote {pruned.folder}" in pruned.answer.out
    net = small(project, pruned.folder)
    counts = f"parameters  {count(project.source.model()) / 1e3:.1f} k -> {count(net) / 1e3:.1f} k"
    assert counts in pruned.answer.out


def test_prune_as_json_has_counts_plan_and_proof(done, project, tmp_path):
    about = done("prune", *project.words, "--keep", "0.5", "--out", tmp_path / "p", "--json").json
    net = small(project, tmp_path / "p")
    assert about["parameters"] == {"before": count(project.source.model()), "after": count(net)}
    assert about["MACs"] == {"before": macs(32), "after": macs(16)}
    assert about["plan"] == json.loads((tmp_path / "p" / "plan.json").read_text())
    assert 0 <= about["proof"]["max_relative_difference"] <= 1e-9


def test_a_named_block_is_removed(done, project, tmp_path):
    done("prune", *project.words, "--keep", "1", "--drop-block", "block", "--out", tmp_path / "p")
    plan = json.loads((tmp_path / "p" / "plan.json").read_text())
    assert [block["name"] for block in plan["blocks"]] == ["block"]


def test_replay_proves_the_plan_again_and_writes_nothing(done, project, pruned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = done("prune", *project.words, "--replay", pruned.folder).out
    assert "proof: equals the masked original to " in text
    assert f"replayed {pruned.folder}" in text
    about = done("prune", *project.words, "--replay", pruned.folder, "--json").json
    assert about["parameters"]["after"] == count(small(project, pruned.folder))
    assert list(tmp_path.iterdir()) == []


def test_distill_trains_the_pruned_network_for_as_long_as_asked(distilled, pruned, project):
    about = distilled.answer.json
    # 192 samples, a quarter of them held out for calibration: four whole batches of 32.
    assert (about["fit"]["steps"], about["fit"]["epochs_done"]) == (4, 1.0)
    assert sorted(path.name for path in distilled.folder.iterdir()) == ["fit.json", "plan.json", "weights.safetensors"]
    assert json.loads((distilled.folder / "fit.json").read_text()) == about["fit"]
    assert about["fit"]["augment"] == "shift"  # The project's pictures come out alike.
    assert (distilled.folder / "plan.json").read_text() == (pruned.folder / "plan.json").read_text()
    before, after = small(project, pruned.folder), small(project, distilled.folder)
    assert about["parameters"]["after"] == count(after)
    assert not torch.equal(before.stem.weight, after.stem.weight)
    assert not list(distilled.folder.parent.glob(".distilled.checkpoint*"))


def test_distill_prints_counts_on_stdout_and_progress_on_stderr(done, project, pruned, tmp_path):
    words = ["--pruned", pruned.folder, "--epochs", "1", "--time", "60s", "--out", tmp_path / "d"]
    answer = done("distill", *project.words, *words)
    assert answer.out.startswith(f"wrote {tmp_path / 'd'}\n  parameters ")
    assert "training" in answer.err
    assert "training" not in answer.out


def test_export_writes_a_file_that_computes_what_torch_computes(original, project, answers):
    x, _ = project.source.test_data().tensors
    with torch.no_grad():
        want = project.source.model()(x).numpy()
    np.testing.assert_allclose(answers(original.path, x), want, rtol=1e-3, atol=1e-4)
    for text in (
        f"wrote {original.path}",
        "exporter    torch.export",
        "inputs      x float32 [batch, 3, 16, 16]",
        f"size        {kilobytes(original.path)}",
        f"parameters  {count(project.source.model()) / 1e3:.1f} k",
        f"MACs        {macs(32) / 1e6:.1f} M",
    ):
        assert text in original.answer.out
    assert "exporting: " in original.answer.err


def test_export_takes_a_pruned_network(done, project, distilled, answers, tmp_path):
    path = tmp_path / "small.onnx"
    answer = done("export", *project.words, "--pruned", distilled.folder, "--opset", "18", "--out", path, "--json")
    net = small(project, distilled.folder)
    assert answer.err == ""
    assert (answer.json["path"], answer.json["opset"]) == ("small.onnx", 18)
    assert (answer.json["parameters"], answer.json["macs"]) == (count(net), macs(16))
    assert [entry.version for entry in onnx.load(path).opset_import if not entry.domain] == [18]
    x, _ = project.source.test_data().tensors
    with torch.no_grad():
        np.testing.assert_allclose(answers(path, x), net(x).numpy(), rtol=1e-3, atol=1e-4)


HARMLESS = """

class Asking(Net):
    def forward(self, x):
        y = super().forward(x)
        return y if x[0, 0, 0, 0] > x[0, 0, 0, 1] else y + 0


def asking():
    net = Asking()
    net.load_state_dict(model().state_dict())
    return net
"""


def test_export_says_which_exporter_refused_the_model_before(done, project, tmp_path):
    (tmp_path / "net.py").write_text(project.path.read_text() + HARMLESS)
    text = done("export", f"{tmp_path / 'net.py'}:asking", *project.data, "--out", tmp_path / "asking.onnx").out
    assert "exporter    torchscript" in text
    assert "refused before: torch.export: " in text
    assert "return y if x[0, 0, 0, 0] > x[0, 0, 0, 1] else y + 0" in text


def test_quantize_explains_every_node(int8, original, project, answers):
    convolutions = [node.name for node in onnx.load(original.path).graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    rows = [line for line in int8.answer.out.splitlines() if any(name in line for name in convolutions)]
    assert len(rows) == 3
    assert all("int8" in row for row in rows)
    assert f"fp32: {kilobytes(original.path)}" in int8.answer.out
    row = next(line for line in int8.answer.out.splitlines() if str(int8.path) in line)
    assert [part for part in (isa_target(), "static", kilobytes(int8.path), " dB") if part not in row] == []
    types = {value.data_type for value in onnx.load(int8.path).graph.initializer}
    assert onnx.TensorProto.INT8 in types
    x, labels = project.source.test_data().tensors
    assert (answers(int8.path, x).argmax(1) == labels.numpy()).mean() >= 0.9


def test_what_nodes_are_predicted_to_cost_is_the_profiles(done, edgekit, project, original, tmp_path):
    profile = shipped_profile("x86-vnni").to_dict()
    profile["patterns"]["Conv.dense"]["int8"] = {"base_us": 1234.5, "rate_us": 0.0}
    (tmp_path / "slow.json").write_text(json.dumps(profile))
    words = ["quantize", *project.words, "--file", original.path, "--out", tmp_path / "q.onnx"]
    text = done(*words, "--profile", tmp_path / "slow.json", "--explain").out
    assert text.count("1.23 ms") == 2  # the two 3x3 convolutions of the block
    (tmp_path / "slow.json").write_text("{}")
    answer = edgekit(*words, "--profile", tmp_path / "slow.json")
    assert (answer.code, "no profile of this version" in answer.err) == (4, True)


@pytest.mark.slow
def test_a_profile_of_this_machine(done, tmp_path):
    path = tmp_path / "profile.json"
    text = done("profile", "--device", "x86-vnni", "--time", "1s", "--out", path).out
    assert f"wrote {path}" in text
    written = json.loads(path.read_text())
    assert (written["target"], written["threads"]) == ("x86-vnni", 1)
    assert set(written["patterns"]) == set(shipped_profile("x86-vnni").patterns)
    assert all(name in text for name in written["patterns"])


def test_quantize_as_json_counts_the_nodes(done, project, original, tmp_path):
    path = tmp_path / "q.onnx"
    answer = done("quantize", *project.words, "--file", original.path, "--ranges", "minmax", "--out", path, "--json")
    (file,) = answer.json["files"]
    assert (answer.err, file["path"], file["target"]) == ("", "q.onnx", isa_target())
    assert len(file["nodes"]) >= len(onnx.load(original.path).graph.node) - 1
    assert sum(node["precision"] == "int8" for node in file["nodes"]) == file["int8_nodes"] >= 3
    assert file["plan"]["ranges"] == "minmax"
    assert file["size_bytes"] == path.stat().st_size
    onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_quantize_for_cuda_gives_half_precision(done, project, original, tmp_path):
    path = tmp_path / "half.onnx"
    done("quantize", *project.words, "--file", original.path, "--target", "cuda", "--out", path)
    types = {value.data_type for value in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types
    assert onnx.TensorProto.INT8 not in types


def test_quantize_for_all_targets_at_once_writes_a_file_for_each(done, project, original, tmp_path, answers):
    targets = ["x86-vnni", "x86-avx2", "arm64", "cuda", "tensorrt", "size"]
    words = ["--target", ",".join(targets), "--bits", "4", "--out", tmp_path / "q.onnx"]
    answer = done("quantize", *project.words, "--file", original.path, *words, "--json")
    rows = {row["target"]: row for row in answer.json["files"]}
    assert list(rows) == targets
    assert {row["path"] for row in rows.values()} == {f"q.{target}.onnx" for target in targets}
    assert {path.name for path in tmp_path.iterdir()} == {row["path"] for row in rows.values()}
    assert {name for name, row in rows.items() if row["seen_here"].endswith("not run on such a device")} >= {
        "cuda",
        "tensorrt",
    }
    assert [rows[name]["scheme"] for name in ("arm64", "cuda", "tensorrt", "size")] == [
        *("static", "half", "static", "weights"),
    ]
    assert all(row["sqnr_db"] > 10 for row in rows.values())
    x, labels = project.source.test_data().tensors
    for name in ("x86-vnni", "x86-avx2", "size"):
        assert (answers(tmp_path / rows[name]["path"], x).argmax(1) == labels.numpy()).mean() >= 0.9


def test_validate_scores_the_files_as_onnx_runtime_itself_does(done, project, original, int8, answers):
    words = ["--file", original.path, "--file", int8.path, "--split", "all-test", "--time", "1s"]
    answer = done("validate", *project.words, *words, "--json")
    rows = {row["file"]: row for row in answer.json["rows"]}
    assert (answer.err, list(rows), answer.json["baseline"]) == ("", ["original", "original.int8"], "original")
    x, labels = project.source.test_data().tensors
    for name, path in (("original", original.path), ("original.int8", int8.path)):
        accuracy = 100 * (answers(path, x).argmax(1) == labels.numpy()).mean()
        assert rows[name]["score"]["n"] == 96
        assert rows[name]["score"]["metric"]["value"] == pytest.approx(accuracy)
        assert rows[name]["drop"]["value"] == pytest.approx(100 - accuracy)
        assert rows[name]["size_bytes"] == path.stat().st_size
        assert list(rows[name]["nodes"]["providers"]) == ["CPUExecutionProvider"]
    assert rows["original"]["ratio"]["value"] == 1.0


def test_validate_prints_a_table_of_the_half_that_is_test(done, project, original, int8):
    answer = done("validate", *project.words, "--file", original.path, "--file", int8.path, "--time", "1s")
    for text in ("net-model: test", "original (cpu)", "original.int8 (cpu)", "100.00 [100.00, 100.00]", "CPU "):
        assert text in answer.out
    assert "validating on cpu: " in answer.err
    assert "validating" not in answer.out


def test_validate_says_what_changed_besides_the_mean(edgekit, project, original, int8, answers):
    words = ["--file", original.path, "--file", int8.path, "--split", "all-test", "--time", "1s"]
    gates = ["--max-churn", "0", "--max-worst-class-drop", "100", "--max-robustness-drop", "100"]
    answer = edgekit("validate", *project.words, *words, *gates, "--robustness-time", "2s", "--json")
    (about,) = answer.json["behaviour"]
    x, labels = project.source.test_data().tensors
    before, after = (answers(path, x).argmax(1) for path in (original.path, int8.path))
    assert about["churn"]["counts"] == {
        "n": 96,
        "changed": int((before != after).sum()),
        "fixed": int(((before != labels.numpy()) & (after == labels.numpy())).sum()),
        "broken": int(((before == labels.numpy()) & (after != labels.numpy())).sum()),
        "both_wrong": 0,
    }
    assert [row["name"] for row in about["classes"]["rows"]] == ["ant", "bee", "cat", "dog"]
    assert 0 < about["robustness"]["n"] <= 96
    churn, worst, robustness = about["gates"]
    assert (churn["gate"], churn["holds"]) == ("max_churn", bool((before == after).all()))
    assert (worst["holds"], robustness["holds"]) == (True, True)
    assert answer.code == (0 if churn["holds"] else 3)
    assert all(len(each["picture"]) <= 2048 for each in about["broken_samples"]["shown"])


def test_a_broken_gate_of_validate_is_named_and_is_an_exit_code(edgekit, project, original, int8):
    words = ["--file", original.path, "--file", int8.path, "--time", "1s", "--robustness-time", "0"]
    answer = edgekit("validate", *project.words, *words, "--max-robustness-drop", "1", "--max-churn", "100")
    assert answer.code == 3
    for text in (
        "original.int8 against original: what changed besides the mean (n = 48)",
        "churn, %",
        "drop of the worst class: ",
        "rise of ECE, points",
        "robustness: not measured: no time was given for it",
        "gate BROKEN: robustness drop, points: not measured, at most 1.00",
        "gate holds: churn, percent: ",
    ):
        assert text in answer.out
    alone = edgekit("validate", *project.words, "--file", original.path, "--max-churn", "1")
    assert (alone.code, "gates, but one file" in alone.err) == (4, True)


def test_bench_measures_all_files_in_one_run(done, original, int8, bundle, tmp_path):
    words = [original.path, int8.path, bundle.folder, "--time", "0.5s", "--batch", "2", "--starts", "1"]
    answer = done("bench", *words, "--raw", tmp_path / "raw.json", "--json")
    rows = answer.json["candidates"]
    assert (answer.err, [row["name"] for row in rows]) == ("", ["original", "original.int8", "net.edgekit"])
    assert rows[0]["ratio"]["value"] == 1.0
    assert [row["query_samples"] for row in rows] == [2, 2, 2]
    assert answer.json["sha256"]["original"] == hashlib.sha256(original.path.read_bytes()).hexdigest()
    assert rows[0]["nodes_by_provider"]["CPUExecutionProvider"] > 0
    for row, kept in zip(rows, json.loads((tmp_path / "raw.json").read_text())["candidates"], strict=True):
        samples = kept["latency"]["samples_ms"]
        assert row["latency"]["p50_ms"]["n"] == len(kept["latency"]["rounds_ms"])
        assert min(samples) <= row["latency"]["p50_ms"]["value"] <= max(samples)
        assert "samples_ms" not in row["latency"]


def test_bench_shows_what_was_measured_and_where_the_time_goes(done, original, int8, bundle):
    files = (original.path, int8.path, bundle.folder)
    text = done("bench", *files, "--time", "0.2s", "--starts", "2", "--profile-nodes").out
    for part in ("cpu, 1 thread, batch 1", "original.int8", "measured for 0.2 s at most, in 2 processes each"):
        assert part in text
    assert "costliest nodes, under the profiler" in text
    assert "Conv" in text
    nodes = done("bench", *files, "--time", "0.1s", "--starts", "1", "--profile-nodes", "--json").json["nodes"]
    assert {name for row in nodes for name in row["us"]} == {"original", "original.int8", bundle.folder.name}


@pytest.mark.slow
def test_bench_times_pytorch_beside_a_file_and_every_batch_size(done, project, original):
    words = [original.path, f"{project.path}:model", "--time", "0.2s", "--starts", "1", "--batch", "1,4", "--json"]
    rows = done("bench", *words).json["candidates"]
    names = [f"{name}, batch {batch}" for name in ("original", "net.py:model (eager)") for batch in (1, 4)]
    assert [row["name"] for row in rows] == names
    assert [row["batch"] for row in rows] == [1, 4, 1, 4]
    assert all(row["status"] == "measured" for row in rows)


def test_bench_in_the_scenario_of_a_server_says_what_it_cannot_serve(done, tiny):
    words = ["bench", tiny, "--scenario", "server", "--time", "0.3s", "--starts", "1", "--rate"]
    assert "more than it can serve" in done(*words, "1000000").out
    (row,) = done(*words, "200", "--json").json["candidates"]
    assert not any("more than it can serve" in text for text in row["remarks"])


def test_bench_takes_inputs_from_a_file(done, tiny, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.ones((3, 4), np.float32))
    words = [tiny, "--data", tmp_path / "in.npz", "--time", "0.1s", "--starts", "1", "--json"]
    (row,) = done("bench", *words).json["candidates"]
    assert (row["name"], row["batch"]) == ("tiny", 3)


def test_bundle_holds_the_very_files(bundle, original, int8, project):
    assert bundle.answer.out == f"wrote {bundle.folder}; look into it with: edgekit inspect {bundle.folder}\n"
    about = json.loads((bundle.folder / "edgekit" / "bundle.json").read_text())
    assert [(row["name"], row["precision"], row["target"]) for row in about["variants"]] == [
        ("int8-x86-vnni", "int8", "x86-vnni"),
        ("fp32", "fp32", "any"),
    ]
    for row, path in zip(about["variants"], (int8.path, original.path), strict=True):
        assert (bundle.folder / row["file"]).read_bytes() == path.read_bytes()
    assert (about["name"], about["labels"], about["golden_samples"]) == ("net-model", list(project.classes), 4)


def test_whom_an_int8_file_is_for_need_not_be_said(done, project, original, tmp_path):
    """8-bit weights beside unsigned activations: right with VNNI, and without it only where that is known."""
    int8 = tmp_path / "q.onnx"
    done("quantize", *project.words, "--file", original.path, "--target", "x86-vnni", "--out", int8)
    given = ["--file", f"int8={int8}", "--file", f"fp32={original.path}"]
    done("bundle", *project.words, *given, "--out", tmp_path / "b")
    about = json.loads((tmp_path / "b" / "edgekit" / "bundle.json").read_text())
    assert [(row["name"], row["target"]) for row in about["variants"]] == [("int8", "x86-vnni"), ("fp32", "any")]


def test_bundle_has_the_name_and_as_many_samples_as_asked_for(done, project, original, tmp_path):
    words = ["--file", f"fp32={original.path}", "--samples", "2", "--name", "other", "--out", tmp_path / "b"]
    assert done("bundle", *project.words, *words, "--json").json == {"bundle": str(tmp_path / "b")}
    about = json.loads((tmp_path / "b" / "edgekit" / "bundle.json").read_text())
    assert (about["name"], about["golden_samples"]) == ("other", 2)


def test_a_bundle_is_named_after_any_file(done, project, original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my net (2).py").write_text(project.path.read_text())
    answer = done("bundle", "my net (2).py:model", *project.data, "--file", f"fp32={original.path}", "--json")
    assert answer.json == {"bundle": "my-net-2-model.edgekit"}
    assert json.loads((tmp_path / "my-net-2-model.edgekit/edgekit/bundle.json").read_text())["name"] == "my-net-2-model"


def test_a_bundle_takes_raw_input_and_may_have_the_processing_inside(done, edgekit, project, original, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "fit.json").write_text('{"kind": "image", "size": [16, 16], "fit": "letterbox", "pad": 0}')
    shows = '{"kind": "classification", "output": "output", "top": 2}'
    words = ["--file", f"fp32={original.path}", "--preprocessing", tmp_path / "fit.json", "--postprocessing", shows]
    words += ["--raw", tmp_path / "photo.png", "--license", tmp_path / "terms.txt"]
    assert "terms.txt" in edgekit("bundle", *project.words, *words, "--out", tmp_path / "none").err
    assert not (tmp_path / "none").exists()
    (tmp_path / "terms.txt").write_text("Do as you like.")
    for name, more in (("plain", ()), ("baked", ("--bake", "postprocessing", "--bake", "preprocessing"))):
        done("bundle", *project.words, *words, *more, "--out", tmp_path / name)
    plain, baked = (json.loads((tmp_path / name / "edgekit/bundle.json").read_text()) for name in ("plain", "baked"))
    assert (plain["preprocessing"]["fit"], plain["postprocessing"]["top"]) == ("letterbox", 2)
    assert (tmp_path / "plain" / "LICENSE").read_text() == "Do as you like."
    assert baked["preprocessing"] is None
    assert baked["io"]["inputs"] == [{"name": "image", "dtype": "uint8", "shape": ["height", "width", 3]}]
    assert baked["provenance"]["baked"]["input_difference"] <= 1.001 / 255
    said = [done("run", tmp_path / name, tmp_path / "photo.png", "--check").out for name in ("plain", "baked")]
    assert said[0] == said[1]
    assert said[0].count("%") == 2
    wrong = edgekit("bundle", *project.words, *words, "--bake", "preprocesing")
    assert wrong.code == 4
    assert "did you mean preprocessing?" in wrong.err


def test_inspect_of_a_bundle_checks_it_and_gives_its_identity(done, bundle):
    about = done("inspect", bundle.folder, "--json").json
    manifest = (bundle.folder / "edgekit" / "bundle.json").read_bytes()
    assert about["digest"] == hashlib.sha256(manifest).hexdigest()
    assert (about["whole"], about["changed"]) == (True, [])
    sizes = {str(p.relative_to(bundle.folder)): p.stat().st_size for p in bundle.folder.rglob("*") if p.is_file()}
    del sizes["edgekit/bundle.json"]
    assert about["size_bytes"] == sum(sizes.values())
    assert {name: model["macs"] for name, model in about["models"].items()} == {
        row["file"]: macs(32) for row in about["variants"]
    }
    text = done("inspect", bundle.folder).out
    assert text.startswith(f"{bundle.folder}\n")
    assert about["digest"] in text


def test_inspect_of_an_onnx_file_says_what_it_takes_and_holds(done, original):
    about = done("inspect", original.path, "--json").json
    graph = onnx.load(original.path).graph
    assert about["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 16, 16]}]
    assert (about["nodes"], about["tensors"]) == (len(graph.node), len(graph.initializer))
    assert about["size_bytes"] == original.path.stat().st_size
    # BatchNorm is folded: each convolution has a bias in its place.
    assert (about["macs"], about["parameters"]) == (macs(32), 9 * 32 * (3 + 2 * 32) + 3 * 32 + 4 * 32 + 4)
    assert (about["unknown"], about["int8"]["share_of_nodes"]) == ([], 0)
    text = done("inspect", original.path).out
    assert f"size        {kilobytes(original.path)}" in text
    assert hashlib.sha256(original.path.read_bytes()).hexdigest() in text


def test_inspect_of_an_int8_file_says_how_much_of_it_is_int8(done, int8, original, tmp_path):
    about = done("inspect", int8.path, "--json").json
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    settings.log_severity_level = 4
    onnxruntime.InferenceSession(str(int8.path), settings, providers=["CPUExecutionProvider"])
    kernels = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    # Three convolutions and the head; which of them are int8 was measured.
    share = (kernels.count("QLinearConv") + kernels.count("QGemm")) / 4
    assert share > 0
    assert (about["macs"], about["int8"]["share_of_nodes"]) == (macs(32), share)
    text = done("inspect", int8.path, "--compare", original.path).out
    assert kilobytes(int8.path) in text
    assert kilobytes(original.path) in text
    assert f"{share:.1%} of the 4 nodes" in text
    both = done("inspect", int8.path, "--compare", original.path, "--json").json["models"]
    assert [row["path"] for row in both] == [str(int8.path), str(original.path)]


def test_inspect_of_a_model_of_pytorch(done, project):
    about = done("inspect", f"{project.path}:model", "--shape", "x=1x3x16x16", "--json").json
    assert (about["kind"], about["macs"]) == ("torch", macs(32))
    assert about["parameters"] == count(project.source.model())
    text = done("inspect", f"{project.path}:model", "--data", f"{project.path}:test_data").out
    assert "block.first" in text


def test_run_predicts_what_torch_predicts(done, bundle, project, tmp_path):
    x, _ = project.source.test_data().tensors
    np.save(tmp_path / "one.npy", x[0].numpy())
    np.save(tmp_path / "five.npy", x[:5].numpy())
    with torch.no_grad():
        named = [project.classes[index] for index in project.source.model()(x[:5]).argmax(1)]
    assert len(set(named)) > 1
    answer = done("run", bundle.folder, tmp_path / "one.npy", tmp_path / "five.npy", "--check")
    lines = answer.out.splitlines()
    assert "golden vectors: 4 samples reproduced" in lines
    one, five = lines[-2:]
    assert one.startswith(f"{tmp_path / 'one.npy'}: {named[0]} (")
    assert [part.split(" ")[0] for part in five.removeprefix(f"{tmp_path / 'five.npy'}: ").split("; ")] == named


def test_run_as_json_has_the_probabilities(done, bundle, project, answers, tmp_path):
    x, labels = project.source.test_data().tensors
    np.save(tmp_path / "one.npy", x[0].numpy())
    about = done("run", bundle.folder, tmp_path / "one.npy", "--check", "--json").json
    prediction = about["predictions"][str(tmp_path / "one.npy")]
    assert (prediction["label"], prediction["index"]) == (project.classes[labels[0]], int(labels[0]))
    assert sum(prediction["probabilities"]) == pytest.approx(1)
    assert about["golden"]["samples"] == 4
    unchecked = done("run", bundle.folder, tmp_path / "one.npy", "--json").json
    assert unchecked["golden"] is None
    logits = answers(bundle.folder / "models" / "model" / "fp32" / "model.onnx", x[:1])[0]
    assert prediction["probabilities"] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=0.1)


def test_doctor_tries_the_providers(edgekit):
    answer = edgekit("doctor", "--json")
    findings = {row["name"]: row for row in answer.json}
    assert answer.code == (4 if any(row["status"] == "fault" for row in answer.json) else 0)
    assert findings["CPUExecutionProvider"]["found"] == "runs a model and computes it right"
    text = edgekit("doctor").out
    assert all(name in text for name in findings)


def test_doctor_ends_with_4_where_something_is_at_fault(edgekit, monkeypatch):
    from edgekit.device import Finding

    broken = Finding(name="engine", status="fault", found="smoke [black]", way_out="open the window")
    monkeypatch.setattr("edgekit.device.doctor", lambda: (broken,))
    answer = edgekit("doctor")
    assert answer.code == 4
    assert "smoke [black]" in answer.out


def test_init_writes_a_file_that_reads_as_toml_and_overwrites_nothing(edgekit, error_text, tmp_path):
    path = tmp_path / "new" / "edgekit.toml"
    answer = edgekit("init", path.parent)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"wrote {path}: fill in model, train and test, then run `edgekit compress`\n"
    assert set(tomllib.loads(path.read_text())) == {"model", "train", "test"}
    path.write_text("mine")
    answer = edgekit("init", path.parent)
    assert (answer.code, answer.out) == (4, "")
    error = (f"{path} is there already", path.parent, "nothing is overwritten", "edit it, or remove it")
    assert answer.err == error_text(*error)
    assert path.read_text() == "mine"
