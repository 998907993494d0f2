from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekit.errors import WorkloadError
from edgekit.workload import TEMPLATE, WorkloadConfig, read_config

MINIMAL = 'model = "net.py:model"\ntrain = "data/train.zip"\ntest = "package.module:test"\n'


def write(tmp_path, text):
    path = tmp_path / "edgekit.toml"
    path.write_text(text)
    return path


def test_the_template_parses_as_it_is(tmp_path):
    config = read_config(write(tmp_path, TEMPLATE))
    assert config == WorkloadConfig(
        model="net.py:model", train="net.py:train_data", test="net.py:test_data", folder=tmp_path
    )


def test_the_template_shows_every_entry_and_parses_with_all_of_them(tmp_path):
    # A preprocessing says what image_size and its companions say: with both, the file is refused.
    either = re.sub(r"^# (?=(?!preprocessing)\w+ = )", "", TEMPLATE, flags=re.MULTILINE)
    assert read_config(write(tmp_path, either)).postprocessing["kind"] == "classification"
    other = re.sub(r"^# (?=(?!image_size|shorter_side|mean|std)\w+ = )", "", TEMPLATE, flags=re.MULTILINE)
    assert read_config(write(tmp_path, other)).preprocessing["size"] == [640, 640]
    uncommented = re.sub(r"^# (?=\w+ = )", "", TEMPLATE, flags=re.MULTILINE)
    with pytest.raises(WorkloadError, match="one or the other"):
        read_config(write(tmp_path, uncommented))
    config = read_config(write(tmp_path, either))
    assert config.labels == ("cat", "dog")
    assert config.image_size == (224, 224)
    for name in set(WorkloadConfig.__slots__) - {"folder"}:
        assert f"\n{name} = " in uncommented
        assert getattr(config, name) is not None or name == "preprocessing"


def test_relative_paths_start_from_the_files_folder(tmp_path):
    config = read_config(write(tmp_path, MINIMAL))
    assert config.resolved(config.model) == f"{tmp_path}/net.py:model"
    assert config.resolved(config.train) == f"{tmp_path}/data/train.zip"
    assert config.resolved(config.test) == "package.module:test"
    assert config.resolved("/abs/net.py:f") == "/abs/net.py:f"


def test_options_override_the_file_and_their_paths_start_here(tmp_path):
    config = read_config(write(tmp_path, MINIMAL), test="other.npz", seed=3, limit_test=None)
    assert config.seed == 3
    assert config.limit_test is None
    assert config.resolved(config.test) == str(Path.cwd() / "other.npz")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("sede = 1", ["unknown key 'sede'", "where", "edgekit.toml: sede", "did you mean seed?"]),
        ('seed = "1"', ["seed is '1'", "an integer from 0 up"]),
        ("limit_test = 0", ["limit_test is 0", "a positive number of samples"]),
        ("image_size = 32", ["image_size is 32", "[height, width]"]),
        ("mean = [0.5]", ["mean, std is ((0.5,), None)"]),
        ("mean = [0.5]\nstd = [0.0]", ["std is (0.0,)", "positive numbers"]),
        ('preprocessing = "image"', ["preprocessing is 'image'", "a table with `kind`"]),
        (
            '[preprocessing]\nkind = "picture"',
            ["got 'picture'", "preprocessing.kind", "image, log_mel, waveform, wordpiece"],
        ),
        ('[preprocessing]\nkind = "image"\nsize = [4, 0]', ["got [4, 0]", "preprocessing.size"]),
        ('[postprocessing]\nkind = "text"', ["missing", "postprocessing.output"]),
        ('task = "detection"', ["task is 'detection'", "classification, multilabel"]),
        ('selection_from = "both"', ["selection_from is 'both'"]),
        ('labels = "cat"', ["labels is 'cat'", "a list of names"]),
        ("seed = ", ["no valid TOML"]),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, line, parts):
    with pytest.raises(WorkloadError) as caught:
        read_config(write(tmp_path, MINIMAL + line))
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_key_and_a_missing_file(tmp_path):
    with pytest.raises(WorkloadError, match="the key 'test' is missing"):
        read_config(write(tmp_path, 'model = "m:f"\ntrain = "m:f"\n'))
    with pytest.raises(WorkloadError, match="`edgekit init` writes one"):
        read_config(tmp_path / "absent.toml")
