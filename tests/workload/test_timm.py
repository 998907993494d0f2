import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edgekit.errors import WorkloadError
from edgekit.workload import load_model

pytestmark = pytest.mark.usefixtures("timm")
SMALL = "timm:test_resnet?pretrained=no"


def test_a_model_is_taken_as_it_is(timm):
    source = load_model(SMALL)
    torch.manual_seed(3)
    made = source.factory()
    torch.manual_seed(3)
    own = timm.create_model("test_resnet")
    assert type(made) is type(own)
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), own.state_dict().values(), strict=True))


def test_preprocessing_is_that_of_timm(timm):
    known = load_model(SMALL).preprocessing
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((300, 211), Image.Resampling.BILINEAR)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=timm.create_model("test_resnet")))
    theirs = transform(coarse).numpy()
    assert np.abs(known.apply(np.asarray(coarse))[0] - theirs).max() < 1e-6


@pytest.mark.parametrize(
    "name", ["resnet18.tv_in1k", "mobilenetv3_small_100.lamb_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"]
)
def test_figures_of_known_networks(timm, name, monkeypatch):
    from edgekit.workload.models import from_timm

    monkeypatch.setattr(from_timm, "_cached", lambda _: "weights.safetensors")
    source = load_model(f"timm:{name}")
    data = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    assert source.preprocessing.size == data["input_size"][1:]
    assert source.preprocessing.mean == data["mean"]
    assert source.preprocessing.std == data["std"]
    assert source.preprocessing.shorter_side == int(data["input_size"][1] / data["crop_pct"])
    assert source.preprocessing.filter == data["interpolation"]
    assert len(source.labels) == 1000
    assert source.labels[0] == "tench, Tinca tinca"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_file_with_their_number_of_classes(timm, tmp_path, suffix):
    own = timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / f"best{suffix}"
    if suffix == ".pth":
        torch.save(
            {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in own.state_dict().items()}}, path
        )
    else:
        save_file(own.state_dict(), path)
    made = load_model("timm:test_resnet", weights=path).factory()
    assert all(torch.equal(own.state_dict()[key], value) for key, value in made.state_dict().items())


def test_a_pickle_is_read_only_if_it_is_trusted(timm, tmp_path):
    own = timm.create_model("test_resnet")
    torch.save(own, tmp_path / "whole.pth")
    with pytest.raises(WorkloadError, match="holds more than weights") as caught:
        load_model("timm:test_resnet", weights=tmp_path / "whole.pth").factory()
    assert "--trust-pickle" in caught.value.way_out
    made = load_model("timm:test_resnet", weights=tmp_path / "whole.pth", trusted=tmp_path / "whole.pth").factory()
    assert torch.equal(made.fc.weight, own.fc.weight)


def test_weights_of_another_network(timm, tmp_path):
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(WorkloadError, match="is missing, and") as caught:
        load_model("timm:test_resnet", weights=tmp_path / "vit.safetensors").factory()
    assert caught.value.way_out == "name the network that the weights were trained in"


@pytest.mark.parametrize(
    ("reference", "problem", "way_out"),
    [
        ("timm:resnet181", "timm has no model 'resnet181'", "did you mean resnet18?"),
        ("timm:resnet18.a1_in1", "timm has no weights 'a1_in1' of resnet18", "did you mean resnet18.a1_in1k?"),
        ("timm:test_resnet?pretraind=no", "unknown option 'pretraind'", "did you mean pretrained?"),
        ("timm:test_resnet?pretrained=maybe", "pretrained is 'maybe'", ""),
        ("timm:test_resnet?pretrained=no&classes=x", "classes is 'x'", ""),
        ("timm:test_resnet?classes=3", "classes with pretrained weights", "--weights FILE"),
    ],
)
def test_wrong_spellings(reference, problem, way_out):
    with pytest.raises(WorkloadError) as caught:
        load_model(reference)
    assert problem in caught.value.problem
    assert way_out in caught.value.way_out


def test_nothing_is_downloaded_unasked(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WorkloadError, match="are not on this machine") as caught:
        load_model("timm:test_resnet")
    assert caught.value.way_out.startswith("timm:test_resnet?download=yes, --weights FILE")


def test_random_weights_may_have_any_number_of_classes():
    assert load_model("timm:test_resnet?pretrained=no&classes=5").factory().fc.out_features == 5
