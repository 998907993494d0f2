"""The reference networks: each exports untrained, the data have the shapes that they state, the catalogue is whole."""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
import sys
import sysconfig
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import typer
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from edgekit.cli.app import app
from edgekit.errors import WorkloadError
from edgekit.export import export
from edgekit.workload import Batch, load_callable

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tools" / "reference"
MODULES = ("training", "images", "segments", "sources", "keywords", "networks", "catalogue")
PIXELS, FRAMES, WORDS = (3, 32, 32), (8, 40), (64,)


@pytest.fixture(scope="module")
def projects():
    """Each project's module, its folder importable while they are imported, as Python does for a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield {name: importlib.import_module(name) for name in MODULES if name != "networks"}
    for name in [name for name in sys.modules if name.split(".")[0] in MODULES]:
        del sys.modules[name]


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EDGEKIT_REFERENCE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def photos(tmp_path, monkeypatch) -> dict[str, list[np.ndarray]]:
    """Zips as CIFAR-10's, of six and four grey pictures; gives the pictures in the order of the names."""
    monkeypatch.setenv("EDGEKIT_REFERENCE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EDGEKIT_CIFAR10", str(tmp_path))
    values = {"train": (10, 50, 90, 130, 170, 210), "test": (20, 60, 100, 140)}
    for split, greys in values.items():
        with zipfile.ZipFile(tmp_path / f"cifar10-{split}.zip", "w") as archive:
            for index in reversed(range(len(greys))):  # names in the zip need not be sorted
                file = io.BytesIO()
                Image.new("RGB", (32, 32), (greys[index],) * 3).save(file, "JPEG")
                archive.writestr(f"{'bird' if index < 2 else 'cat'}/{index:04}.jpg", file.getvalue())
    return values


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        ("images", "mobilenet_v2", PIXELS, {"Clip": 21}),
        ("images", "mobilenet_v3", PIXELS, {"HardSwish": 13, "HardSigmoid": 6}),
        ("images", "shufflenet", PIXELS, {"Split": 6, "Concat": 9, "Transpose": 9}),
        ("images", "convnext", PIXELS, {"LayerNormalization": 10, "Gelu": 6}),
        ("images", "csp_silu", PIXELS, {"Sigmoid": 47, "Concat": 13, "Resize": 2}),
        ("images", "vit_tiny", PIXELS, {"Softmax": 4, "Gelu": 4}),
        ("images", "resnet56", PIXELS, {"Conv": 57}),
        ("segments", "unet", PIXELS, {"ConvTranspose": 3, "Concat": 3}),
        ("sources", "text_encoder", WORDS, {"Softmax": 3, "LayerNormalization": 7}),
        ("keywords", "lstm", FRAMES, {"LSTM": 2}),
        ("keywords", "gru", FRAMES, {"GRU": 1}),
        ("keywords", "transformer", (80, 40), {"Softmax": 3}),
    ],
    ids=lambda row: row[1],
)
def test_an_untrained_network_exports_with_what_it_stands_for(projects, tmp_path, row):
    project, name, shape, operators = row
    torch.manual_seed(0)
    network = projects[project].RECIPES[name].network().eval()
    x = torch.randint(0, 4096, (2, *shape)) if name == "text_encoder" else torch.randn(2, *shape)
    exported = export(network, Batch((x,), {}, None), tmp_path / "net.onnx")
    assert 2 in exported.parity.batches
    written = [node.op_type for node in onnx.load(exported.path).graph.node]
    assert {kind: written.count(kind) for kind in operators} == operators
    (row_of_readme,) = re.findall(rf"^\| `{name}` \|.*$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert row_of_readme.split(" | ")[3] == f"{exported.parameters:,}"


@pytest.mark.usefixtures("weights")
def test_every_network_is_in_the_catalogue_and_can_be_asked_for(projects):
    entries = projects["catalogue"].REFERENCES
    names = {name for project in ("images", "segments", "sources", "keywords") for name in projects[project].RECIPES}
    assert set(entries) == names | {"resnet20"}
    for name in names:
        entry = entries[name]
        project = FOLDER / Path(entry.training[0]).name
        assert entry.training == (f"tools/reference/{project.name}", "train", name)
        assert entry.model == f"tools/reference/{project.name}:{name}"
        with pytest.raises(WorkloadError, match=f"python tools/reference/{project.name} train {name}"):
            load_callable(f"{project}:{name}")()


def test_the_catalogues_words_are_words_of_compress(projects):
    compress = typer.main.get_command(app).commands["compress"]
    known = {word for parameter in compress.params for word in parameter.opts}
    for entry in projects["catalogue"].REFERENCES.values():
        assert {word for word in entry.workload if word.startswith("--")} <= known


def test_what_was_trained_is_what_the_project_gives(projects, weights):
    training = projects["training"]
    recipe = training.Recipe(network=lambda: nn.Linear(4, 3), epochs=2, settings={"batch_size": 16})
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x[:, :3].argmax(1))
    network = training.train("tiny", recipe, data, recipe.epochs)
    again = training.trained("tiny", "tiny.py", {"tiny": recipe})
    assert (weights / "tiny.pt").is_file()
    assert not again.training
    np.testing.assert_array_equal(again.weight.detach(), network.weight.detach())
    logits = x.numpy() @ again.weight.detach().numpy().T + again.bias.detach().numpy()
    expected = 100 * np.mean(logits.argmax(1) == data.tensors[1].numpy())
    assert training.accuracy(again, data) == pytest.approx(expected)


def test_accuracy_counts_positions_where_these_have_labels(projects):
    logits = torch.tensor([[[9.0, 0.0], [0.0, 9.0]], [[0.0, 9.0], [9.0, 0.0]]])[None].expand(3, -1, -1, -1)
    labels = torch.tensor([[[0, 1], [1, 0]], [[0, 1], [1, 1]], [[0, 0], [0, 1]]])
    assert projects["training"].accuracy(nn.Identity(), TensorDataset(logits, labels)) == pytest.approx(100 * 8 / 12)


def test_pictures_are_those_of_the_zip(projects, photos):
    images = projects["images"]
    data = images.test_data()
    assert data.labels == [0, 0, 1, 1]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for index, grey in enumerate(photos["test"]):
        x, label = data[index]
        assert (x.shape, x.dtype, label) == (PIXELS, torch.float32, int(index > 1))
        np.testing.assert_allclose(x.mean((1, 2)), (grey / 255 - mean) / std, atol=0.02)
    # Later uses read what was decoded.
    Path(images.archive("test")).unlink()
    assert torch.equal(images.test_data()[3][0], data[3][0])


@pytest.mark.usefixtures("photos")
def test_augmentation_shows_the_borders_and_goes_by_the_seed(projects):
    images = projects["images"]
    data = images.train_data()
    torch.manual_seed(1)
    first = torch.stack([data[5][0] for _ in range(20)])
    torch.manual_seed(1)
    assert torch.equal(torch.stack([data[5][0] for _ in range(20)]), first)
    grey = (first != 0).all(1).flatten(1).sum(1)  # pixels that are not zeros around the picture
    assert 28 * 28 <= grey.min() < 32 * 32
    assert len({x.numpy().tobytes() for x in first}) > 1


@pytest.mark.usefixtures("photos")
def test_pasted_digits_are_where_the_mask_says(projects):
    segments = projects["segments"]
    data = segments.test_data()
    plain = projects["images"].test_data()
    for index in range(len(data)):
        x, mask = data[index]
        assert (x.shape, x.dtype, mask.shape, mask.dtype) == (PIXELS, torch.float32, (32, 32), torch.int64)
        assert 1 <= len(mask.unique()) - 1 <= 3
        assert 0 <= mask.min() < mask.max() <= 10
        changed = (x - plain[index][0]).abs().amax(0) > 1e-5
        assert changed[mask > 0].float().mean() > 0.9
        assert torch.equal(x, data[index][0])
        assert torch.equal(mask, data[index][1])
    # Digits of the two splits are different ones.
    train, test = segments.digits("train"), segments.digits("test")
    assert [len(part[1]) for part in (train, test)] == [1400, 397]


@pytest.mark.usefixtures("photos")
def test_pasted_digits_are_drawn_anew_in_training(projects):
    data = projects["segments"].train_data()
    torch.manual_seed(0)
    first, second = data[0], data[0]
    assert not torch.equal(first[1], second[1])


def test_source_windows_are_of_files_of_one_split(projects):
    sources = projects["sources"]
    parts = {"train": sources.train_data(), "test": sources.test_data()}
    for data in parts.values():
        tokens, labels = data.tensors
        assert (tokens.dtype, tokens.shape[1:], data[0][1].ndim) == (torch.int64, WORDS, 0)
        assert not tokens[:, 0].any()
        assert 1 <= tokens[:, 1:].min() < tokens[:, 1:].max() < 4096
        assert set(labels.tolist()) == set(range(10))
    # json's five files, by hand: the third is for testing, in windows that do not overlap.
    files = sorted(Path(sysconfig.get_path("stdlib"), "json").rglob("*.py"))
    words = re.findall(r"\w+|[^\w\s]", files[2].read_text())
    tokens, labels = parts["test"].tensors
    assert int((labels == sources.PACKAGES.index("json")).sum()) == sum(
        len(re.findall(r"\w+|[^\w\s]", file.read_text())) // 63 for file in files[2::4]
    )
    start = tokens[labels == sources.PACKAGES.index("json")][0, 1:].tolist()
    assert all((a == b) == (start[i] == start[i + 1]) for i, (a, b) in enumerate(pairwise(words[:63])))


@pytest.mark.usefixtures("weights")
def test_data_as_they_are(projects, shared, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CIFAR10", str(shared / "data"))
    monkeypatch.setenv("EDGEKIT_SPOKEN_DIGITS", str(shared / "data" / "spoken-digits.zip"))
    photos = projects["images"].test_data()
    assert np.bincount(photos.labels).tolist() == [1000] * 10
    theirs = load_callable(f"{shared / 'user-project' / 'project.py'}:test_data")()
    assert torch.equal(photos[4321][0], theirs[4321][0])
    assert photos.labels == theirs.labels
    assert len(projects["segments"].test_data()) == 10_000
    recording, digit = projects["keywords"].test_data()[0]
    assert (recording.shape, recording.dtype, digit) == ((80, 40), torch.float32, 0)
