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
from edgekit.device.session import open_session
from edgekit.errors import WorkloadError
from edgekit.export import export
from edgekit.workload import Batch, load_callable

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tools" / "reference"
PROJECTS = (
    *("images", "segments", "sources", "keywords"),
    *("forecasts", "writing", "questions", "detection", "generation", "control"),
)
MODULES = ("training", *PROJECTS, "networks", "catalogue")
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
        ("images", "plain56", PIXELS, {"Conv": 55, "Add": 0}),
        ("images", "shortcut20", PIXELS, {"Conv": 21}),
        ("images", "plain20", PIXELS, {"Conv": 19, "Add": 0}),
        ("images", "resnet18", PIXELS, {"Conv": 20}),
        ("images", "plain18", PIXELS, {"Conv": 17, "Add": 0}),
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
    names = {name for project in PROJECTS for name in projects[project].RECIPES}
    # What measures the distance between sets of pictures is compressed by nobody; `step` is the decoder with a cache.
    assert set(entries) == names - {"digit_features"} | {"resnet20", "step"}
    for name in set(entries) & names:
        entry = entries[name]
        project = FOLDER / Path(entry.training[0]).name
        assert entry.training == (f"tools/reference/{project.name}", "train", name)
        assert entry.model == f"tools/reference/{project.name}:{name}"
        with pytest.raises(WorkloadError, match=f"python tools/reference/{project.name} train {name}"):
            load_callable(f"{project}:{name}")()
        for function in filter(None, (entry.figures, entry.train, entry.test, entry.task if ":" in entry.task else "")):
            assert callable(load_callable(f"{ROOT / function}"))


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


def test_a_training_that_was_interrupted_goes_on(projects, weights):
    training, calls = projects["training"], []

    def objective(network, batch):
        calls.append(len(calls))
        if calls[-1] == 52:  # 32 steps are the first training, and some of a measurement may come before.
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(batch.call(network), batch.target)

    settings = {"batch_size": 8, "threads": 1, "checkpoint_every_s": 1e-9}
    recipe = training.Recipe(network=lambda: nn.Linear(4, 2), epochs=4, settings=settings, objective=objective)
    data = TensorDataset(torch.randn(64, 4), torch.arange(64) % 2)
    whole = training.train("whole", recipe, data, 4)
    with pytest.raises(KeyboardInterrupt):
        training.train("net", recipe, data, 4)
    assert (weights / "net.checkpoint.pt").is_file()
    assert not (weights / "net.pt").exists()
    before = len(calls)
    done = training.train("net", recipe, data, 4)
    assert 0 < len(calls) - before < 32
    torch.testing.assert_close(done.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert sorted(path.name for path in weights.iterdir()) == ["net.pt", "whole.pt"]


def test_accuracy_of_a_network_with_two_inputs(projects):
    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    x = torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    y = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    data = TensorDataset(x, y, torch.tensor([0, 0, 0]))
    assert projects["training"].accuracy(Sum(), data) == pytest.approx(100 * 2 / 3)


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


@pytest.mark.parametrize(
    "row",
    [
        ("forecasts", "forecast_gru", [torch.randn(2, 168, 1)], {"GRU": 2}),
        ("forecasts", "forecast_tcn", [torch.randn(2, 168, 1)], {"Conv": 11}),
        ("writing", "decoder", [torch.randint(0, 128, (2, 128))], {"Softmax": 3, "Gather": 1}),
        (
            "questions",
            "questioner",
            [torch.randn(2, 1, 32, 32), torch.randint(0, 9, (2, 4))],
            {"Conv": 4, "Softmax": 2},
        ),
        ("detection", "detector", [torch.randn(2, 3, 32, 32)], {"Softplus": 2, "Resize": 1}),
        ("generation", "autoencoder", [torch.rand(2, 1, 16, 16)], {"ConvTranspose": 2}),
        ("generation", "vae", [torch.rand(2, 1, 16, 16)], {"ConvTranspose": 2, "Split": 1}),
        ("generation", "gan_generator", [torch.randn(2, 16)], {"ConvTranspose": 2, "Sigmoid": 1}),
        ("generation", "denoiser", [torch.randn(2, 1, 16, 16), torch.tensor([3, 150])], {"Sin": 1, "ConvTranspose": 1}),
        ("control", "cartpole", [torch.randn(2, 4)], {"Gemm": 4}),
    ],
    ids=lambda row: row[1],
)
@pytest.mark.slow
def test_a_network_of_another_family_exports(projects, tmp_path, row):
    project, name, inputs, operators = row
    torch.manual_seed(0)
    network = projects[project].RECIPES[name].network().eval()
    exported = export(network, Batch(tuple(inputs), {}, None), tmp_path / "net.onnx")
    assert 2 in exported.parity.batches
    written = [node.op_type for node in onnx.load(exported.path).graph.node]
    assert {kind: written.count(kind) for kind in operators} == operators
    (row_of_readme,) = re.findall(rf"^\| `{name}` \|.*$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert row_of_readme.split(" | ")[3] == f"{exported.parameters:,}"


def test_the_decoder_with_its_cache_writes_what_the_one_without_does(projects, tmp_path):
    decoder = projects["writing"].RECIPES["decoder"].network().eval()
    step = importlib.import_module("networks.decoder").Step(decoder)
    ids = torch.randint(0, 128, (2, 9), generator=torch.Generator().manual_seed(1))
    cache = torch.zeros(2, 3, 4, 128, 24)
    first = (ids[:, :1], torch.zeros(2, dtype=torch.int64), cache, cache)
    exported = export(step, Batch(first, {}, None), tmp_path / "step.onnx")
    session = open_session(exported.path)
    keys = values = cache.numpy()
    with torch.no_grad():
        expected = decoder(ids).numpy()
    for time in range(9):
        feeds = (ids[:, time : time + 1].numpy(), np.full(2, time, np.int64), keys, values)
        named = dict(zip([each.name for each in session.get_inputs()], feeds, strict=True))
        logits, keys, values = session.run(None, named)
        np.testing.assert_allclose(logits, expected[:, :, time], rtol=1e-3, atol=1e-4)


def test_forecasts_are_of_the_stated_processes(projects):
    forecasts = projects["forecasts"]
    series = forecasts.demand(np.random.default_rng(3), 400, 4000)
    # What no sine explains is AR(2): the autocorrelation at lag one is 0.6 / (1 + 0.2).
    hours = np.arange(4000)
    waves = [wave(2 * np.pi * hours / period) for period in (24, 168) for wave in (np.sin, np.cos)]
    design = np.stack(waves, axis=1)
    rest = series.T - design @ np.linalg.lstsq(design, series.T, rcond=None)[0]
    lag = float((rest[1:] * rest[:-1]).mean() / (rest**2).mean())
    assert lag == pytest.approx(0.5, abs=0.01)
    x, y = forecasts.test_data()[0]
    assert (x.shape, y.shape, x.dtype) == ((168, 1), (24,), torch.float32)


def test_answers_are_what_the_picture_and_the_question_say(projects):
    questions = projects["questions"]
    data = questions.test_data()
    seen = set()
    for index in range(60):
        picture, words, answer = data[index]
        assert (picture.shape, words.tolist()) == ((1, 32, 32), data[index][1].tolist())
        text = questions.ANSWERS[answer]
        kind = data.asked.tolist().index(words.tolist())
        seen.add(kind)
        assert (text in {"yes", "no"}) == (kind == 3)
        assert kind == 3 or (int(text) <= 9 or kind == 2)
    assert seen == {0, 1, 2, 3}


@pytest.mark.usefixtures("photos")
def test_a_detector_that_knows_finds_everything(projects):
    detection = projects["detection"]
    data = detection.test_data()
    points, strides = detection.centres()
    targets = torch.stack([data[index][1] for index in range(len(data))])
    distances, logits = torch.zeros(len(data), 80, 4), torch.full((len(data), 80, 10), -9.0)
    for row, target in enumerate(targets):
        for label, *box in target[target[:, 0] >= 0].tolist():
            middle = torch.tensor([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
            free = (logits[row] < 0).all(1)
            cell = int(torch.where(free, (points - middle).abs().amax(1), torch.inf).argmin())
            x, y = points[cell]
            distances[row, cell] = torch.stack([x - box[0], y - box[1], box[2] - x, box[3] - y]) / strides[cell]
            logits[row, cell, int(label)] = 9.0
    outputs = (distances.numpy(), logits.numpy())
    assert detection.average_precision(outputs, targets.numpy()) == pytest.approx(100)
    np.testing.assert_allclose(detection.task().per_sample(outputs, targets.numpy()), 1.0)
    # One wrong class halves what is found of a picture with two, and a shifted box is not found at all.
    assert detection.average_precision((outputs[0] + 3, outputs[1]), targets.numpy()) < 50
    # The loss sees it as well: other classes in the same places cost more.
    assert float(detection.objective((distances, logits), targets)) < float(
        detection.objective((distances, logits.roll(1, 2)), targets)
    )


def test_noise_out_of_a_perfect_denoiser_is_the_picture(projects):
    generation = projects["generation"]
    noisy, step, noise = generation.noisy_test_data()[5]
    share = generation.shares()[step]
    clean = (noisy - (1 - share).sqrt() * noise) / share.sqrt()
    picture = 2 * generation.pictures("test")[5] - 1
    np.testing.assert_allclose(clean, picture, atol=1e-2)
    # One whose noise is always that of one picture leads there.
    left = generation.shares().numpy()

    def towards(x: np.ndarray, steps: np.ndarray) -> np.ndarray:
        kept = left[steps][:, None, None, None]
        return (x - np.sqrt(kept) * picture.numpy()[None]) / np.sqrt(1 - kept)

    np.testing.assert_allclose(
        generation.sample(towards, 3), np.repeat(picture.numpy()[None] / 2 + 0.5, 3, 0), atol=2e-2
    )


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
