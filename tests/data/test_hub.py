import numpy as np
import pytest

from edgekit.data import read_source
from edgekit.errors import DataError

datasets = pytest.importorskip("datasets", reason="datasets (Hugging Face) is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def numbers(tmp_path):
    rows = datasets.Dataset.from_dict({"x": [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], "kind": ["b", "a", "b"]})
    rows.save_to_disk(tmp_path / "numbers")
    return f"hf:{tmp_path / 'numbers'}"


def test_a_saved_data_set_of_numbers(numbers):
    data = read_source(f"{numbers}?label=kind")
    assert (data.classes, data.labels, len(data)) == (["a", "b"], [1, 0, 1], 3)
    assert (data[1][0].dtype, data[1][0].tolist(), data[1][1]) == (np.float32, [2.0, 3.0], 0)


def test_several_columns_are_inputs_by_name(tmp_path):
    rows = {"input_ids": [[1, 2]], "attention_mask": [[1, 0]], "label": [1]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "ids")
    inputs, label = read_source(f"hf:{tmp_path / 'ids'}")[0]
    assert ({name: array.tolist() for name, array in inputs.items()}, label) == (
        {"input_ids": [1, 2], "attention_mask": [1, 0]},
        1,
    )


def test_class_labels_bring_their_names(tmp_path, tokenize):
    features = datasets.Features({"say": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"say": ["abcd", "ef"], "label": [1, 0]}, features=features)
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(tmp_path / "texts")
    data = read_source(f"hf:{tmp_path / 'texts'}?split=train", text=tokenize)
    assert (data.classes, data.labels, data[0][0]["input_ids"].tolist()) == (["no", "yes"], [1, 0], [97, 98, 99, 100])
    assert len(read_source(f"hf:{tmp_path / 'texts'}?split=test", text=tokenize)) == 1
    with pytest.raises(DataError, match="no split 'tset'") as caught:
        read_source(f"hf:{tmp_path / 'texts'}?split=tset", text=tokenize)
    assert caught.value.way_out == "did you mean test?"
    with pytest.raises(DataError, match="no split is named") as caught:
        read_source(f"hf:{tmp_path / 'texts'}", text=tokenize)
    assert caught.value.way_out.endswith("?split=train")


def test_a_folder_of_images(tmp_path, png, prepare):
    for name, value in {"train/dog/a.png": 51, "train/cat/b.png": 102}.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(png(value))
    data = read_source(f"hf:{tmp_path / 'data'}", image=prepare)
    found = {data.classes[label]: round(float(image.mean()) * 255) for image, label in (data[0], data[1])}
    assert found == {"dog": 51, "cat": 102}


def test_parquet_and_csv(tmp_path):
    rows = datasets.Dataset.from_dict({"a": [1.5, 2.5], "b": [0, 1], "y": [3, 4]})
    rows.to_parquet(tmp_path / "rows.parquet")
    inputs, label = read_source(f"hf:{tmp_path / 'rows.parquet'}?features=a")[1]
    assert (float(inputs), label) == (2.5, 4)


@pytest.mark.parametrize(
    ("options", "problem", "way_out"),
    [
        ("?label=knd", "no column 'knd'", "did you mean kind?"),
        ("?split=train", "no splits, but 'train' was asked for", ""),
        ("?label=kind&text=x", "a text, but nothing says", "tokenize beforehand"),
        ("?label=kind&image=x", "images, but nothing says", "--image-size"),
        ("?label=x", "the columns are kind", "?text=kind"),
    ],
)
def test_the_faults_of_columns(numbers, options, problem, way_out):
    with pytest.raises(DataError) as caught:
        read_source(numbers + options)
    assert problem in caught.value.problem
    assert way_out in caught.value.way_out


def test_what_is_no_data_set(tmp_path, numbers):
    with pytest.raises(DataError, match="no folder") as caught:
        read_source(f"{numbers}x")
    assert caught.value.way_out == "did you mean numbers?"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot load"):
        read_source(f"hf:{tmp_path / 'empty'}")
