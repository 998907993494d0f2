from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from edgekit.device import inspect, load
from edgekit.device.model import max_difference
from edgekit.errors import BundleError, DataError, EdgekitError, ProviderError
from edgekit.spec import IOSpec, TensorSpec

IMAGE = np.random.default_rng(5).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def softmax(row):
    return np.exp(row) / np.exp(row).sum()


def test_predicts_from_raw_input_in_every_form(bundle, reference, tmp_path):
    model = load(bundle)
    tensor = reference.prepare.apply(IMAGE)
    expected = softmax(reference.expected(tensor)[0].astype(np.float64))
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    np.save(tmp_path / "image.npy", IMAGE)
    np.save(tmp_path / "tensor.npy", tensor)
    np.savez(tmp_path / "feeds.npz", image=tensor)
    files = [tmp_path / name for name in ("image.png", "image.npy", "tensor.npy", "feeds.npz")]
    for raw in (IMAGE, tensor, tensor[0], {"image": tensor}, *files, str(files[0])):
        made = model.predict(raw)
        assert made.index == expected.argmax()
        assert made.label == model.labels[expected.argmax()]
        assert np.allclose(made.probabilities, expected, atol=1e-5)


def test_a_batch_gives_a_prediction_each(bundle, reference):
    tensor = np.concatenate([reference.prepare.apply(IMAGE)] * 3)
    assert [one.label for one in load(bundle).predict(tensor)] == [load(bundle).predict(IMAGE).label] * 3


def test_runs_tensors_by_name(bundle, reference):
    tensor = reference.prepare.apply(IMAGE)
    outputs = load(bundle).run({"image": tensor})
    assert np.allclose(outputs["scores"], reference.expected(tensor), atol=1e-4)


def test_knows_what_it_is(bundle, reference):
    model = load(bundle)
    assert model.spec == reference.spec
    assert model.labels == ("circle", "square", "star")
    assert model.metrics == {"top-1 accuracy": 91.5}
    assert model.metadata["source"] == "test"
    assert model.preprocessing == reference.prepare
    assert [variant.name for variant in model.variants] == ["near", "exact"]
    assert model.variant.name == "exact"
    assert model.explain() == (
        "exact (fp32, cpu, for any) runs with 1 thread(s): made for any; this processor is x86-vnni"
    )


def test_the_variant_suits_the_processor(bundle, monkeypatch):
    monkeypatch.setattr("edgekit.device.model.isa_target", lambda: "arm64")
    assert load(bundle).variant.name == "near"


def test_a_compromise_is_announced(make_bundle, monkeypatch, tmp_path):
    from edgekit.bundle import Variant

    folder = make_bundle()
    folder = make_bundle(
        "arm", variants={"arm": Variant(path=tmp_path / "near.onnx", precision="int8", target="arm64")}
    )
    monkeypatch.setattr("edgekit.device.model.isa_target", lambda: "x86-avx2")
    with pytest.warns(UserWarning, match="made for arm64, and this processor is x86-avx2"):
        model = load(folder)
    assert "compromise: " in model.explain()
    assert model.check().samples == 2


def test_an_absent_provider_is_an_error_and_no_slow_success(bundle, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="'cuda' is not in this onnxruntime"):
        load(bundle, provider="cuda")


def test_a_provider_that_does_not_work_is_passed_over_aloud_unless_asked_for(make_bundle, monkeypatch, tmp_path):
    from edgekit.bundle import Variant
    from edgekit.device import model as module

    make_bundle()
    both = {
        "gpu": Variant(path=tmp_path / "exact.onnx", provider="cuda", precision="fp16", target="cuda"),
        "cpu": Variant(path=tmp_path / "exact.onnx"),
    }
    folder = make_bundle("both", variants=both)
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    really_open = module.open_session

    def driverless(model, *, provider, **options):
        if provider == "cuda":
            raise ProviderError("no driver")
        return really_open(model, provider=provider, **options)

    monkeypatch.setattr(module, "open_session", driverless)
    with pytest.warns(UserWarning, match="passed over gpu .*: no driver"):
        model = load(folder)
    assert model.variant.name == "cpu"
    assert "passed over gpu" in model.explain()
    with pytest.raises(ProviderError, match="no driver"):
        load(folder, provider="cuda")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (np.zeros((5, 4, 3), np.float32), "got float32 [5, 4, 3]\n  where: image"),
        (np.zeros((5, 4, 4), np.uint8), "drop an alpha channel"),
        ({"picture": np.zeros((1, 3, 4, 4), np.float32)}, "got inputs ['picture']"),
        ({"image": np.zeros((1, 3, 4, 5), np.float32)}, "got float32 [1, 3, 4, 5]\n  where: tensor 'image'"),
        ("absent.jpg", "cannot read the image"),
        ("absent.npy", "cannot read"),
    ],
)
def test_refuses_input_that_does_not_fit(bundle, raw, text):
    with pytest.raises(EdgekitError) as caught:
        load(bundle).predict(raw)
    assert text in str(caught.value)


def test_pickles_are_never_read(bundle, tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="without pickles"):
        load(bundle).predict(tmp_path / "evil.npy")


def test_a_model_without_labels_gives_tensors_and_takes_no_files(make_bundle, reference):
    folder = make_bundle(
        labels=(),
        preprocessing=None,
        golden=[(g := reference.golden()[0]).__class__(inputs=g.inputs, outputs=g.outputs)],
    )
    model = load(folder, provider="cpu")
    tensor = reference.prepare.apply(IMAGE)
    assert np.allclose(model.predict(tensor)["scores"], reference.expected(tensor), atol=0.5)
    with pytest.raises(DataError, match="it takes tensors"):
        model.predict("photo.jpg")


def test_one_array_for_several_inputs_is_refused(bundle):
    import dataclasses

    model = load(bundle)
    second = TensorSpec(name="mask", dtype="bool", shape=())
    spec = IOSpec(inputs=(*model.spec.inputs, second), outputs=model.spec.outputs)
    several = dataclasses.replace(model, manifest=dataclasses.replace(model.manifest, spec=spec))
    with pytest.raises(DataError, match="inputs image, mask"):
        several.predict(IMAGE)
    golden_free = dataclasses.replace(several.manifest, golden_samples=0)
    example = dataclasses.replace(several, manifest=golden_free).example()
    assert {name: (value.dtype.name, value.shape) for name, value in example.items()} == {
        "image": ("float32", (1, 3, 4, 4)),
        "mask": ("bool", ()),
    }


def test_golden_vectors_come_out_right(bundle):
    check = load(bundle).check()
    assert check.samples == 2
    assert check.differences["scores"] <= check.tolerances["scores"]
    assert json.loads(json.dumps(check.to_dict()))["samples"] == 2


def test_golden_vectors_out_of_tolerance_are_an_error(bundle, reseal, monkeypatch):
    def tighten(about):
        for variant in about["variants"]:
            variant["tolerance"] = {"scores": 1e-6}

    reseal(bundle, tighten)
    monkeypatch.setattr("edgekit.device.model.isa_target", lambda: "arm64")
    with pytest.raises(BundleError) as caught:
        load(bundle).check()
    assert caught.value.problem.startswith("output 'scores' of golden sample 0 differs by 0.")
    assert caught.value.rule == "at most 1e-06, measured when the bundle was made"


def test_another_preprocessing_is_noticed(bundle, reseal):
    reseal(bundle, lambda about: about["preprocessing"].update(mean=[0.5, 0.5, 0.5]))
    with pytest.raises(BundleError, match="the preprocessed image of golden sample 0 differs by"):
        load(bundle).check()
    reseal(bundle, lambda about: about.update(preprocessing=None))
    with pytest.raises(BundleError, match="golden sample 0 has raw input"):
        load(bundle).check()


def test_no_golden_vectors(make_bundle):
    with pytest.raises(BundleError, match="no golden vectors"):
        load(make_bundle(golden=()), provider="cpu").check()


def test_largest_difference():
    a = np.array([1.0, np.nan, np.inf], np.float32)
    assert max_difference(a, a) == 0
    assert max_difference(a, np.array([1.5, np.nan, np.inf])) == 0.5
    assert max_difference(a, np.array([1.0, 2.0, np.inf])) == np.inf
    assert max_difference(a, a[:2]) == np.inf
    assert max_difference(np.zeros(0), np.zeros(0)) == 0


def test_inspection(bundle):
    about = inspect(bundle)
    assert json.loads(json.dumps(about)) == about
    assert about["whole"]
    assert about["size_bytes"] == sum(
        path.stat().st_size for path in bundle.rglob("*") if path.is_file() and path.name != "bundle.json"
    )
    assert about["variants"][1]["graph"]["operators"] == {"Flatten": 1, "MatMul": 1}
    path = bundle / "models/model/near/model.onnx"
    path.write_bytes(bytes(path.stat().st_size))
    changed = inspect(bundle)
    assert not changed["whole"]
    assert changed["changed"] == ["models/model/near/model.onnx"]
    assert changed["variants"][0]["graph"] is None
