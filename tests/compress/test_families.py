"""The main job on networks of other kinds: recurrent, attention, several inputs; and on a user's project as it is."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from edgekit.cli import main
from edgekit.device import load

ROOT = Path(__file__).parents[2]
KEYWORDS = ROOT / "tools" / "reference" / "keywords.py"


def compressed(capsys, *arguments):
    code = main(["compress", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code in (0, 3), captured.err
    return code, json.loads(captured.out)


@pytest.fixture
def trained(shared, tmp_path, monkeypatch):
    """Train a keyword network for a moment; gives the accuracy that the training script itself prints."""
    monkeypatch.setenv("EDGEKIT_SPOKEN_DIGITS", str(shared / "data" / "spoken-digits.zip"))
    monkeypatch.setenv("EDGEKIT_REFERENCE_WEIGHTS", str(tmp_path / "weights"))

    def train(network, epochs):
        command = [sys.executable, KEYWORDS, "train", network, "--epochs", str(epochs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        return float(done.stdout.splitlines()[-1].split()[1])

    return train


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("network", "epochs", "kernel"), [("lstm", 16, "DynamicQuantizeLSTM"), ("transformer", 4, "MatMul")]
)
def test_spoken_keywords(trained, tmp_path, capsys, network, epochs, kernel):  # noqa: PLR0917 - a row of the table
    accuracy = trained(network, epochs)
    assert accuracy > 60
    data = [*("--train", f"{KEYWORDS}:train_data"), *("--test", f"{KEYWORDS}:test_data")]
    code, report = compressed(
        capsys,
        f"{KEYWORDS}:{network}",
        *data,
        "--max-drop",
        3,
        "--time",
        "60s",
        "--rounds",
        0,
        "--out",
        tmp_path / "run",
    )
    assert code == 0
    rows = {row["stage"]: row for row in report["stages"]}
    # Selection and test are the halves of the same recordings: their mean is what the training script counted.
    assert abs(rows["fp32"]["metric"]["value"] - accuracy) < 6
    assert any(kernel in name for name in rows["int8"]["details"]["kernels"])
    assert rows["int8"]["size_bytes"] < 0.5 * rows["fp32"]["size_bytes"]
    model = load(report["bundle"])
    assert model.check().samples >= 1


TWO_INPUTS = """
import torch
from torch import nn
from torch.utils.data import Dataset


class Asked(nn.Module):
    '''A question (a token) about an image; both come by name.'''

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.deep = nn.Conv2d(32, 32, 3, padding=1)
        self.words = nn.Embedding(7, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, image, question):
        seen = torch.relu(self.deep(torch.relu(self.conv(image)))).mean((2, 3))
        return {"logits": self.head(seen * torch.sigmoid(self.words(question)))}


def model():
    torch.manual_seed(0)
    return Asked().eval()


class Pairs(Dataset):
    def __init__(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(n, 3, 20, 20, generator=generator)
        self.questions = torch.randint(0, 7, (n,), generator=generator)
        with torch.no_grad():
            self.labels = model()(self.images, self.questions)["logits"].argmax(1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self.images[index], "question": self.questions[index]}, self.labels[index]


def train_data():
    return Pairs(128, 1)


def test_data():
    return Pairs(64, 2)
"""


@pytest.mark.slow
def test_two_inputs_by_name_and_outputs_in_a_dict(tmp_path, capsys):
    project = tmp_path / "asked.py"
    project.write_text(textwrap.dedent(TWO_INPUTS))
    data = ["--train", f"{project}:train_data", "--test", f"{project}:test_data"]
    code, report = compressed(
        capsys, f"{project}:model", *data, "--rounds", 0, "--max-drop", 40, "--time", "60s", "--out", tmp_path / "run"
    )
    assert code == 0
    model = load(report["bundle"])
    rng = np.random.default_rng(0)
    inputs = {"image": rng.standard_normal((1, 3, 20, 20)).astype(np.float32), "question": np.array([3])}
    scope = {}
    exec(compile(project.read_text(), "asked.py", "exec"), scope)  # noqa: S102 - the project written above
    torch = scope["torch"]
    with torch.no_grad():
        logits = scope["model"]()(*(torch.from_numpy(inputs[name]) for name in ("image", "question")))["logits"]
    assert model.run(inputs)["logits"] == pytest.approx(logits.numpy(), abs=0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_users_project_is_taken_as_it_is(shared, tmp_path, capsys):
    folder = shared / "user-project"
    project = folder / "project.py"

    def digests():
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}

    before = digests()
    data = ["--train", f"{project}:train_data", "--test", f"{project}:test_data"]
    # Work ends the run and not its time: what runs beside this test must not take the round away.
    limits = ["--limit-train", 4000, "--limit-test", 2000, "--time", "600s", "--rounds", 1, "--epochs", 2]
    limits += ["--max-drop", 5]
    code, report = compressed(capsys, f"{project}:model", *data, *limits, "--out", tmp_path / "run")
    assert code == 0, report["verdict"]
    assert digests() == before
    rows = {row["stage"]: row for row in report["stages"]}
    assert {"fp32", "int8", "pruned-1", "pruned-1-int8"} <= set(rows)
    # 88.27 % on all of test; a thousand of its samples say so to 3 points.
    assert rows["fp32"]["metric"]["value"] == pytest.approx(88.27, abs=3)
    assert rows["int8"]["drop"]["value"] < 2
    # Zero-padded shortcuts: the pruned network still equals the masked original, and every width is on the grid.
    (first,) = report["rounds"]
    assert first["fit"]["proof"]["max_relative_difference"] < 1e-9
    assert first["decisions"]
    assert rows["pruned-1"]["parameters"] < rows["fp32"]["parameters"]
    assert rows["int8"]["size_bytes"] < 0.4 * rows["fp32"]["size_bytes"]
    assert load(report["bundle"]).check().samples == 4


SEQUENCES = """
import torch
from torch import nn
from torch.utils.data import DataLoader


class Tagger(nn.Module):
    '''Mean of embeddings behind two matrix products; takes sequences of any length.'''

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 64)
        self.mix = nn.Linear(64, 128)
        self.head = nn.Linear(128, 3)

    def forward(self, tokens):
        return self.head(torch.relu(self.mix(self.words(tokens))).mean(1))


def model():
    torch.manual_seed(0)
    return Tagger().eval()


def padded(items):
    longest = max(len(tokens) for tokens, _ in items)
    rows = [torch.nn.functional.pad(tokens, (0, longest - len(tokens))) for tokens, _ in items]
    return torch.stack(rows), torch.tensor([label for _, label in items])


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    items = []
    for index in range(n):
        tokens = torch.randint(0, 50, (5 + index % 7,), generator=generator)
        with torch.no_grad():
            items.append((tokens, int(model()(tokens[None]).argmax())))
    return DataLoader(items, batch_size=8, collate_fn=padded)


def train_data():
    return data(96, 1)


def test_data():
    return data(64, 2)
"""


@pytest.mark.slow
def test_samples_of_different_lengths_keep_an_open_dimension(tmp_path, capsys):
    project = tmp_path / "tagger.py"
    project.write_text(SEQUENCES)
    data = ["--train", f"{project}:train_data", "--test", f"{project}:test_data", "--dynamic", "tokens:1=time"]
    code, report = compressed(
        capsys, f"{project}:model", *data, "--rounds", 0, "--max-drop", 40, "--time", "60s", "--out", tmp_path / "run"
    )
    assert code == 0
    model = load(report["bundle"])
    assert str(model.spec.inputs[0]) == "int64 [batch, time]"
    for length in (3, 11):
        answer = model.run({"tokens": np.full((2, length), 7)})
        assert [value.shape for value in answer.values()] == [(2, 3)]
