import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import WorkloadError
from edgekit.workload import load_data, load_model

YOLO = Path(__file__).parents[2] / "tools" / "examples" / "yolo.py"


def test_without_ultralytics_the_example_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(WorkloadError, match="cannot import ultralytics") as caught:
        load_model(f"{YOLO}:model").factory()
    assert caught.value.way_out == "pip install ultralytics"
    assert "AGPL" in caught.value.rule


def test_pictures_become_what_a_detector_takes(tmp_path, monkeypatch):
    Image.fromarray(np.full((30, 60, 3), 255, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "readme.txt").write_text("no picture")
    assert len(load_data(f"{YOLO}:images")) == 0  # Where there is no such folder.
    module = next(each for name, each in sys.modules.items() if name.startswith("edgekit_user_yolo"))
    monkeypatch.setattr(module, "PICTURES", tmp_path)
    (picture,) = load_data(f"{YOLO}:images")
    assert picture.shape == (3, 640, 640)
    assert float(picture[0, 320, 320]) == 1.0
    assert round(float(picture[0, 0, 0]) * 255) == 114
