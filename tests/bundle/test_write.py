from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import onnxruntime
import pytest

from edgekit.bundle import Golden, Variant, inspect, record_golden
from edgekit.device import ClassificationPostprocessing, ImagePreprocessing, TextPostprocessing, load
from edgekit.errors import BundleError, StoreError
from edgekit.spec import IOSpec, TensorSpec


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_round_trip(write, spec, feeds):
    model = load(write())
    assert (model.manifest.name, model.spec, model.labels) == ("digits", spec, ("a", "b", "c", "d"))
    assert model.metrics["top-1 accuracy"]["n"] == 1000
    assert model.metadata["versions"]["onnxruntime"] == onnxruntime.__version__
    assert model.check().samples == 3
    x = feeds[0]["x"]
    assert np.allclose(model.run(feeds[0])["y"], np.exp(x) / np.exp(x).sum(), atol=1e-6)


def test_every_file_is_listed_with_its_digest(write):
    files = contents(write(files={"LICENSE": b"free", "edgekit/report.json": b"{}"}))
    listed = json.loads(files.pop("edgekit/bundle.json"))["files"]
    assert listed == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()
    }
    assert {"LICENSE", "edgekit/report.json"} <= set(listed)


def test_equal_arguments_give_equal_bytes(write):
    assert contents(write("one")) == contents(write("two"))


def test_time_is_kept_in_utc(write):
    folder = write(created=datetime(2026, 1, 31, 1, tzinfo=timezone(timedelta(hours=2))))
    assert inspect(folder)["created"] == "2026-01-30T23:00:00+00:00"
    now = datetime.fromisoformat(inspect(write("now", created=None))["created"])
    assert abs(datetime.now(UTC) - now) < timedelta(hours=1)


def test_onnx_runtime_opens_it_as_its_own_model_package(write, save, feeds):
    variants = {
        "cuda-fp16": Variant(path=save("c.onnx"), provider="cuda", precision="fp16", target="cuda"),
        "cpu-int8": Variant(path=save("a.onnx"), precision="int8", target="x86-vnni"),
        "cpu-fp32": Variant(path=save("b.onnx")),
    }
    folder = write(variants=variants, files={"LICENSE": b"free"})
    package = onnxruntime.ModelPackageContext(str(folder))
    assert package.get_component_names() == ["model"]
    assert package.get_variant_names("model") == list(variants)
    assert package.get_variant_ep_name("model", "cuda-fp16") == "CUDAExecutionProvider"
    options = onnxruntime.SessionOptions()
    component = package.select_component("model", onnxruntime.ModelPackageOptions(options))
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert component.get_selected_variant_name() == "cpu-int8"
    (output,) = component.create_session().run(None, feeds[0])
    assert np.allclose(output, load(folder, provider="cpu").run(feeds[0])["y"], atol=1e-6)


def test_the_tolerance_is_measured_for_each_variant(write, save, feeds):
    path = save()
    golden = record_golden(path, feeds)
    largest = max(float(sample.outputs["y"].max()) for sample in golden)
    variants = {"same": Variant(path=path), "off": Variant(path=save("off.onnx", scale=1.1))}
    found = {row["name"]: row for row in inspect(write(variants=variants, golden=golden))["variants"]}
    assert found["same"]["tolerance"]["y"] == pytest.approx(1e-4)
    assert found["off"]["tolerance"]["y"] == pytest.approx(2 * 0.1 * largest, rel=1e-4)
    assert found["off"]["tolerance_from"] == "measured"


def test_the_tolerance_is_assumed_where_the_provider_is_absent(write, save, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    variants = {
        "cpu": Variant(path=save()),
        "gpu": Variant(path=save(), provider="cuda", precision="fp16", target="cuda"),
    }
    found = inspect(write(variants=variants))["variants"][1]
    assert found["tolerance"] == {"y": 0.02}
    assert found["tolerance_from"] == "assumed"


@pytest.mark.parametrize(
    "case",
    [("Softmax", None, "probabilities"), ("Identity", None, "softmax"), ("Identity", "sigmoid", "sigmoid")],
)
def test_probabilities_are_recognised(write, save, feeds, case):
    operator, given, scores = case
    path = save(operator=operator)
    asked = None if given is None else ClassificationPostprocessing(output="y", scores=given)
    folder = write(variants={"cpu": Variant(path=path)}, golden=record_golden(path, feeds), postprocessing=asked)
    found = inspect(folder)["postprocessing"]
    assert (found["kind"], found["output"], found["scores"]) == ("classification", "y", scores)
    assert found["top"] == (1 if asked else 4)


def test_a_bundle_is_replaced_and_nothing_else_is(write, tmp_path):
    first = contents(write())
    second = contents(write(name="other"))
    assert first != second
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "model.onnx"}
    (tmp_path / "empty").mkdir()
    write("empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="something else is there"):
        write("mine")
    with pytest.raises(BundleError, match="something else is there"):
        write("model.onnx")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def _problem(act):
    try:
        act()
    except StoreError as error:
        return error.problem
    return ""


@pytest.mark.parametrize("fails_at", range(8))
def test_a_full_disk_leaves_the_old_bundle_or_the_new_one(write, tmp_path, monkeypatch, fails_at):
    before = contents(write())
    calls = {"left": fails_at}
    import os
    from pathlib import Path

    fsync, replace = os.fsync, Path.replace

    def full(really):
        def act(*words):
            calls["left"] -= 1
            if calls["left"] < 0:
                raise OSError(28, "No space left on device")
            return really(*words)

        return act

    monkeypatch.setattr(os, "fsync", full(fsync))
    monkeypatch.setattr(Path, "replace", full(replace))
    problem = _problem(lambda: write(name="new"))
    monkeypatch.undo()
    assert problem in {"", "cannot write: No space left on device"}
    if (tmp_path / "bundle").exists():
        after = contents(tmp_path / "bundle")
        assert after == before or load(tmp_path / "bundle").manifest.name == "new"


def test_the_old_bundle_comes_back_when_the_new_one_cannot_take_its_name(write, tmp_path, monkeypatch):
    from pathlib import Path

    before, replace = contents(write()), Path.replace

    def refuse(self, target):
        if self.name.endswith(".partial"):
            raise OSError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        write(name="new")
    assert contents(tmp_path / "bundle") == before
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "model.onnx"}


def test_images_are_kept_and_must_preprocess_to_their_inputs(write, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, 2, 2])],
        [value("y", TensorProto.FLOAT, ["n", 3, 2, 2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "i.onnx")
    prepare = ImagePreprocessing(size=(2, 2))
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    tensor = {"name": "x", "dtype": "float32", "shape": ["n", 3, 2, 2]}
    arguments = {
        "variants": {"cpu": Variant(path=tmp_path / "i.onnx")},
        "spec": IOSpec.from_dict({"inputs": [tensor], "outputs": [{**tensor, "name": "y"}]}),
        "labels": (),
        "preprocessing": prepare,
    }
    golden = record_golden(tmp_path / "i.onnx", [{"x": prepare.apply(image)}], raw=[image])
    model = load(write(**arguments, golden=golden))
    assert model.check().samples == 1
    assert np.array_equal(model.golden()[0].raw, image)
    with pytest.raises(BundleError, match="preprocesses to something else"):
        write(**{**arguments, "preprocessing": ImagePreprocessing(size=(2, 2), scale=1.0)}, golden=golden)
    with pytest.raises(BundleError, match="raw input needs preprocessing"):
        write(**{**arguments, "preprocessing": None}, golden=golden)
    with pytest.raises(BundleError, match="1 raw samples for 2 inputs"):
        record_golden(tmp_path / "i.onnx", [{}, {}], raw=[image])


CLASSES = ClassificationPostprocessing(output="y")
NOT_FINITE = Golden(inputs={"x": np.full((1, 4), np.nan, np.float32)}, outputs={"y": np.zeros((1, 4), np.float32)})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": ("a", "b")}, "2 labels\n  where: labels\n  rule: one for each score of the first output"),
        ({"labels": (), "postprocessing": CLASSES}, "no labels\n  where: bundle.labels"),
        (
            {"postprocessing": ClassificationPostprocessing(output="z")},
            "got 'z'\n  where: bundle.postprocessing.output",
        ),
        ({"postprocessing": TextPostprocessing(output="y")}, "edgekit/vocabulary.txt is not there\n  where: files"),
        ({"name": ""}, "where: bundle.name"),
        ({"variants": {}}, "no variant\n  where: bundle.variants"),
        ({"metrics": {"drop": float("nan")}}, "not JSON"),
        ({"provenance": {"model": object()}}, "not JSON"),
        ({"files": {"../up": b""}}, "path '../up'\n  where: files"),
        ({"files": {"manifest.json": b""}}, "manifest.json is taken"),
        ({"golden": [NOT_FINITE]}, "input 'x' is not finite\n  where: golden[0]"),
        ({"golden": [Golden(inputs={}, outputs={})]}, "inputs []\n  where: golden[0]"),
        (
            {"golden": [Golden(inputs={"x": np.zeros((1, 5), np.float32)}, outputs={})]},
            "input 'x' is float32 [1, 5]\n  where: golden[0]",
        ),
    ],
)
def test_arguments_that_do_not_fit(write, tmp_path, change, text):
    with pytest.raises(BundleError) as caught:
        write(**change)
    assert text in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_variants_that_do_not_fit(write, save, tmp_path):
    def refused(**fields):
        with pytest.raises(BundleError) as caught:
            write(variants={"cpu": Variant(**{"path": save(), **fields})})
        return str(caught.value)

    assert refused(path=tmp_path / "absent.onnx").startswith("cannot read: No such file")
    assert refused(provider="npu").startswith("provider 'npu'\n  where: variants['cpu']")
    assert "where: bundle.variants[0].target" in refused(target="z80")
    assert refused(path=save("other.onnx", output="z")).startswith("outputs ['z']\n  where: variants['cpu']")
    assert "is float32 [1, 4] or not finite" in refused(path=save("inf.onnx", scale=float("inf")))
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    assert "where: variants['cpu'], " in refused(path=tmp_path / "junk.onnx")
    (tmp_path / "hollow.onnx").write_bytes(b"\x3a\x00\x42\x02\x10\x14")
    assert refused(path=tmp_path / "hollow.onnx").startswith("onnx.checker refuses the model")


def test_a_variant_of_another_shape_is_refused(write, feeds):
    wide = Golden(inputs=feeds[0], outputs={"y": np.zeros((7, 4), np.float32)})
    with pytest.raises(BundleError, match="output 'y' of golden sample 0"):
        write(golden=[wide])


def test_an_unwritable_place(write, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write("file/bundle")


def test_a_bundle_without_golden_vectors_or_labels(write):
    model = load(write(golden=(), labels=()))
    assert model.golden() == ()
    assert model.variant.tolerance == {}
    assert set(model.predict(np.zeros(4, np.float32))) == {"y"}


def test_an_output_of_any_width_may_have_labels(write):
    free = IOSpec(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", "classes")),),
    )
    assert load(write(spec=free)).predict(np.array([0, 9, 0, 0], np.float32)).label == "b"


def test_labels_of_something_else_than_samples_are_kept_and_predict_gives_tensors(write, save):
    image = IOSpec.from_dict(
        {
            "inputs": [{"name": "x", "dtype": "float32", "shape": ["a", "b", "c"]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["a", "b", "c"]}],
        }
    )
    model = load(write(spec=image, golden=(), variants={"cpu": Variant(path=save())}))
    assert model.labels == ("a", "b", "c", "d")
    assert model.postprocessing is None


def test_int8_gets_room_for_other_kernels(write, tmp_path):
    """A file whose kernel rounds otherwise than its nodes one by one: the tolerance spans both."""
    import onnx
    from onnx import TensorProto, helper

    value, random = helper.make_tensor_value_info, np.random.default_rng(0)
    weights = random.integers(-127, 128, (4, 4)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["mq"]),
        helper.make_node("DequantizeLinear", ["mq", "s", "z"], ["y"]),
    ]
    constants = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [0.0173]),
        helper.make_tensor("z", TensorProto.UINT8, [], [128]),
        helper.make_tensor("w", TensorProto.INT8, [4, 4], weights.tobytes(), raw=True),
    ]
    io = [value(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", io[:1], io[1:], constants)
    path = tmp_path / "int8.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    feeds = [{"x": random.uniform(-1, 1, (64, 4)).astype(np.float32)}]
    golden = record_golden(path, feeds)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (one_by_one,) = onnxruntime.InferenceSession(path, plain, providers=["CPUExecutionProvider"]).run(None, feeds[0])
    apart = float(np.abs(one_by_one - golden[0].outputs["y"]).max())
    (row,) = inspect(write(variants={"cpu": Variant(path=path, precision="int8")}, golden=golden))["variants"]
    floor = 1e-4 * max(1.0, float(np.abs(golden[0].outputs["y"]).max()))
    assert row["tolerance"]["y"] == pytest.approx(max(2 * apart, floor))
