from pathlib import Path

import pytest

from edgekit.data import anchored, split_options
from edgekit.errors import WorkloadError


def test_options_stand_behind_a_question_mark():
    assert split_options("a.csv?label=a%26b&image=c=d", ("label", "image")) == (
        "a.csv",
        {"label": "a&b", "image": "c=d"},
    )
    assert split_options("a.csv", ()) == ("a.csv", {})


@pytest.mark.parametrize(
    ("text", "problem", "way_out"),
    [
        ("a.csv?lable=x", "unknown option 'lable'", "did you mean label?"),
        ("a.csv?label", "got 'label'", "write label=VALUE, once"),
        ("a.csv?label=a&label=b", "got 'label=b'", "write label=VALUE, once"),
        ("a.csv?", "unknown option ''", "leave it out"),
    ],
)
def test_wrong_options(text, problem, way_out):
    with pytest.raises(WorkloadError) as caught:
        split_options(text, ("label",))
    assert (caught.value.problem, caught.value.way_out) == (problem, way_out)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("net.py:model", "/p/net.py:model"),
        ("/q/net.py:model", "/q/net.py:model"),
        ("package.module:model", "package.module:model"),
        ("images", "/p/images"),
        ("data.csv?label=a:b.py", "/p/data.csv?label=a:b.py"),
        ("shards-{0..3}.tar", "/p/shards-{0..3}.tar"),
        ("timm:resnet18", "timm:resnet18"),
        ("torchvision:CIFAR10?root=data&split=test", "torchvision:CIFAR10?root=/p/data&split=test"),
        ("torchvision:CIFAR10?root=/data", "torchvision:CIFAR10?root=/data"),
        ("hf:org/name", "hf:org/name"),
        ("hf:./absent?split=train", "hf:/p/absent?split=train"),
    ],
)
def test_paths_start_from_a_folder_and_names_do_not(text, at):
    assert anchored(text, Path("/p")) == at


def test_a_folder_of_hugging_face_is_known_by_being_there(tmp_path):
    (tmp_path / "model").mkdir()
    assert anchored("hf:model?tokens=8", tmp_path) == f"hf:{tmp_path}/model?tokens=8"
