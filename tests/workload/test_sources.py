from __future__ import annotations

import io
import itertools
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from edgekit.errors import DataError
from edgekit.workload import as_dataset, load_data, loader


def prepare(image):
    return image.astype(np.float32).transpose(2, 0, 1)[None] / 255


def png(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {"dog/a.png": 10, "dog/b.png": 20, "cat/c.PNG": 30}


def make(path, prefix=""):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in FILES.items():
                archive.writestr(prefix + name, png(value))
            archive.writestr(f"{prefix}readme.txt", "no image")
            archive.writestr("__MACOSX/._a.png", "no image")
    else:
        for name, value in FILES.items():
            file = path / prefix / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(value))
    return path


@pytest.mark.parametrize("name", ["images", "images.zip"])
@pytest.mark.parametrize("prefix", ["", "top/inner/"])
def test_an_image_folder_is_read_from_a_directory_or_a_zip(tmp_path, name, prefix):
    data = load_data(str(make(tmp_path / name, prefix)), image=prepare)
    assert data.classes == ["cat", "dog"]
    assert data.labels == [0, 1, 1]
    assert [round(float(data[i][0].mean()) * 255) for i in range(3)] == [30, 10, 20]
    assert data[0][0].shape == (3, 4, 6)


def test_a_zip_is_read_by_several_processes(tmp_path):
    data = load_data(str(make(tmp_path / "images.zip")), image=prepare)
    here = [batch.args[0] for batch in loader(data, 1, model=nn.ReLU())]
    there = [batch.args[0] for batch in loader(data, 1, model=nn.ReLU(), workers=2)]
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_the_faults_of_image_folders(tmp_path):
    with pytest.raises(DataError, match="nothing says how the model takes them"):
        load_data(str(make(tmp_path / "a.zip")))
    with pytest.raises(DataError, match="no such file"):
        load_data(str(tmp_path / "absent.zip"), image=prepare)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        load_data(str(tmp_path / "empty"), image=prepare)
    (tmp_path / "empty" / "x.png").write_bytes(png(1))
    with pytest.raises(DataError, match="lies in no class folder"):
        load_data(str(tmp_path / "empty"), image=prepare)
    (tmp_path / "b.zip").write_text("no zip")
    with pytest.raises(DataError, match="cannot open"):
        load_data(str(tmp_path / "b.zip"), image=prepare)
    damaged = make(tmp_path / "damaged")
    (damaged / "cat" / "c.PNG").write_bytes(png(1)[:40])
    with pytest.raises(DataError, match=r"cannot decode cat/c.PNG"):
        load_data(str(damaged), image=prepare)[0]


def test_npz_with_x_and_y(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.arange(6.0).reshape(3, 2), y=np.array([2, 0, 1], "int32"))
    data = load_data(str(tmp_path / "d.npz"))
    x, y = data[1]
    assert (len(data), x.dtype, x.tolist(), int(y)) == (3, torch.float32, [2.0, 3.0], 0)


def test_npz_with_several_inputs_and_without_target(tmp_path):
    np.savez(tmp_path / "d.npz", ids=np.zeros((3, 2), "int32"), mask=np.ones((3, 2), bool), label=np.arange(3))
    inputs, label = load_data(str(tmp_path / "d.npz"))[2]
    assert sorted(inputs) == ["ids", "mask"]
    assert (inputs["ids"].dtype, int(label)) == (torch.int64, 2)
    np.savez(tmp_path / "u.npz", x=np.zeros((3, 2)))
    assert load_data(str(tmp_path / "u.npz"))[0].shape == (2,)


def test_the_faults_of_npz(tmp_path):
    np.savez(tmp_path / "p.npz", x=np.array([{}, {}], dtype=object), y=np.zeros(2))
    with pytest.raises(DataError, match="cannot read"):
        load_data(str(tmp_path / "p.npz"))
    np.savez(tmp_path / "l.npz", x=np.zeros((3, 2)), y=np.zeros(2))
    with pytest.raises(DataError, match="lengths"):
        load_data(str(tmp_path / "l.npz"))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "l.npz").read_bytes()[:100])
    with pytest.raises(DataError, match="cannot read"):
        load_data(str(tmp_path / "cut.npz"))
    np.savez(tmp_path / "s.npz", x=np.array(["a"]), y=np.zeros(1))
    with pytest.raises(DataError, match="dtype"):
        load_data(str(tmp_path / "s.npz"))


class Endless(IterableDataset):
    def __iter__(self):
        index = 0
        while True:
            yield torch.full((2,), float(index)), index
            index += 1


def test_what_a_function_may_return():
    data = TensorDataset(torch.arange(4.0)[:, None], torch.arange(4))
    assert as_dataset(data) is data
    assert as_dataset(DataLoader(data, batch_size=2, shuffle=True)) is data
    assert as_dataset(itertools.islice(Endless(), 7), limit=7)[6][1] == 6
    for wrong in ({"a": 1}, "text", 5):
        with pytest.raises(DataError, match=f"got a {type(wrong).__name__}"):
            as_dataset(wrong)


def test_a_stream_is_read_once_or_refused():
    for stream in (Endless(), DataLoader(Endless(), batch_size=2)):
        with pytest.raises(DataError, match="of more than 3 samples") as caught:
            as_dataset(stream, limit=3)
        assert "itertools.islice" in caught.value.way_out


def pad(items):
    sequences, labels = zip(*items, strict=True)
    return nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), torch.tensor(labels)


def test_a_loaders_collate_function_is_kept():
    data = as_dataset(DataLoader([(torch.ones(1), 0), (torch.ones(3), 1)], batch_size=2, collate_fn=pad))
    (batch,) = loader(data, 2, model=nn.ReLU())
    assert batch.args[0].tolist() == [[1, 0, 0], [1, 1, 1]]


def test_a_path_that_is_nothing():
    with pytest.raises(DataError, match="is no function and no such directory"):
        load_data("nowhere")
