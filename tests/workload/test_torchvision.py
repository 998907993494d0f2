import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edgekit.errors import DataError, WorkloadError
from edgekit.workload import load_data, load_model

SMALL = "torchvision:squeezenet1_1?pretrained=no"


def test_a_model_with_the_preprocessing_of_its_weights(torchvision):
    source = load_model(SMALL)
    assert type(source.factory()) is torchvision.models.SqueezeNet
    theirs = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((300, 270), Image.Resampling.BILINEAR)
    assert np.abs(source.preprocessing.apply(np.asarray(picture)) - theirs(picture)[None].numpy()).max() < 1e-6


def test_weights_come_from_a_file_with_their_number_of_classes(torchvision, tmp_path):
    own = torchvision.models.squeezenet1_1(num_classes=3)
    save_file(own.state_dict(), tmp_path / "w.safetensors")
    made = load_model("torchvision:squeezenet1_1", weights=tmp_path / "w.safetensors").factory()
    assert torch.equal(made.classifier[1].weight, own.classifier[1].weight)


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("reference", "problem", "way_out"),
    [
        ("torchvision:resnet19", "no classification model 'resnet19'", "did you mean resnet1"),
        ("torchvision:resnet50?pretrained=IMAGENET1K_V3", "has no weights 'IMAGENET1K_V3'", "IMAGENET1K_V"),
        ("torchvision:resnet50?classes=3", "classes is '3'", ""),
    ],
)
def test_wrong_spellings(reference, problem, way_out):
    with pytest.raises(WorkloadError) as caught:
        load_model(reference)
    assert problem in caught.value.problem
    assert way_out in caught.value.way_out


def test_nothing_is_downloaded_unasked(torchvision, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WorkloadError, match="are not on this machine"):
        load_model("torchvision:resnet18")
    labels = load_model("torchvision:resnet18?download=yes").labels
    assert labels == tuple(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])


def test_a_torchvision_that_does_not_fit_is_said_to_be_so(monkeypatch):
    def import_module(_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("importlib.import_module", import_module)
    with pytest.raises(WorkloadError) as caught:
        load_model("torchvision:resnet18")
    assert caught.value.problem == ("cannot import torchvision: RuntimeError: operator torchvision::nms does not exist")
    assert "built for this torch" in caught.value.way_out


def test_a_library_that_is_missing_is_said_to_be_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(WorkloadError) as caught:
        load_model("torchvision:resnet18")
    assert caught.value.way_out == "pip install 'edgekit[torchvision]'"


@pytest.fixture
def fake(torchvision, tmp_path):
    """FakeData's pictures as an image folder, which torchvision reads without a download."""
    for name, value in {"cat/a": 51, "dog/b": 102}.items():
        path = tmp_path / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(path)
    assert torchvision
    return f"torchvision:ImageFolder?root={tmp_path / 'pictures'}"


def prepare(image):
    return image.astype(np.float32).transpose(2, 0, 1)[None] / 255


def test_a_data_set_of_torchvision(fake):
    data = load_data(fake, image=prepare)
    assert (data.classes, list(data.targets), len(data)) == (["cat", "dog"], [0, 1], 2)
    image, target = data[1]
    assert (image.shape, target, round(float(image.mean()) * 255)) == ((3, 4, 6), 1, 102)


@pytest.mark.parametrize(
    ("reference", "problem", "way_out"),
    [
        ("torchvision:CIFAR1O?root=x", "torchvision has no data set 'CIFAR1O'", "did you mean CIFAR10?"),
        ("torchvision:CIFAR10", "no root", "torchvision:CIFAR10?root=data&split=train"),
        ("torchvision:CIFAR10?root=/nowhere", "torchvision cannot open it", "&download=yes"),
        ("torchvision:CIFAR10?root=x&split=valid", "split is 'valid'", ""),
    ],
)
@pytest.mark.usefixtures("torchvision")
def test_the_faults_of_data_sets(reference, problem, way_out):
    with pytest.raises(DataError) as caught:
        load_data(reference, image=prepare)
    assert problem in caught.value.problem
    assert way_out in caught.value.way_out


def test_images_need_preprocessing(fake):
    with pytest.raises(DataError, match="nothing says how the model takes them"):
        load_data(fake)
