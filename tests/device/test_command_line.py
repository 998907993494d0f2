from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from edgekit.device import Finding, load
from edgekit.device.__main__ import main


def run(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def image(tmp_path):
    np.save(tmp_path / "image.npy", np.full((6, 6, 3), 200, np.uint8))
    return tmp_path / "image.npy"


def test_inspect(capsys, bundle):
    code, out, _ = run(capsys, "inspect", bundle)
    assert code == 0
    for text in ("shapes: ", "whole    yes", "image: float32", "circle, square, star", "1 Flatten, 1 MatMul", "91.5"):
        assert text in out
    code, out, _ = run(capsys, "inspect", "--json", bundle)
    assert json.loads(out)["name"] == "shapes"


def test_inspect_of_a_changed_bundle_fails_and_says_what_changed(capsys, bundle):
    path = bundle / "models/model/near/model.onnx"
    path.write_bytes(bytes(path.stat().st_size))
    code, out, _ = run(capsys, "inspect", bundle)
    assert code == 4
    assert "NO, changed: models/model/near/model.onnx" in out


def test_run(capsys, bundle, image, tmp_path):
    code, out, _ = run(capsys, "run", bundle, image)
    assert code == 0
    assert out.split()[0] in {"circle", "square", "star"}
    why = run(capsys, "run", "--explain", bundle, image)[2]
    assert load(bundle).explain() in why
    assert load(bundle).variant.name in why
    assert json.loads(run(capsys, "run", "--json", bundle, image)[1])["label"] == out.split()[0]
    np.save(tmp_path / "two.npy", np.zeros((2, 3, 4, 4), np.float32))
    assert len(run(capsys, "run", bundle, tmp_path / "two.npy")[1].splitlines()) == 2
    assert len(json.loads(run(capsys, "run", "--json", bundle, tmp_path / "two.npy")[1])) == 2


def test_run_without_labels_prints_tensors(capsys, make_bundle, image):
    code, out, _ = run(capsys, "run", make_bundle(labels=()), image, "--provider", "cpu")
    assert code == 0
    assert np.shape(json.loads(out)["scores"]) == (1, 3)


def test_check(capsys, bundle):
    code, out, _ = run(capsys, "check", bundle)
    assert code == 0
    assert "2 golden sample(s) come out right" in out
    assert json.loads(run(capsys, "check", "--json", bundle)[1])["variant"] == "exact"


def test_bench(capsys, bundle):
    code, out, _ = run(capsys, "bench", bundle, "--time", "0.05")
    assert code == 0
    for text in ("(variant exact (fp32, ", "p50 ", "p90 ", "load ", "peak memory "):
        assert text in out
    file = bundle / "models/model/exact/model.onnx"
    words = ["bench", "--json", bundle, file, "--time", "0.05", "--starts", "1", "--batch", "1,2"]
    one, two, alone, both = json.loads(run(capsys, *words)[1])["candidates"]
    assert [each["query_samples"] for each in (one, two, alone, both)] == [1, 2, 1, 2]
    assert alone["size_bytes"] == file.stat().st_size < one["size_bytes"]
    assert all(each["latency"]["rounds"] >= 30 for each in (one, two, alone, both))
    assert run(capsys, "bench", bundle / "absent")[0] == 4


def test_doctor(capsys, monkeypatch):
    assert run(capsys, "doctor")[0] == 0
    assert json.loads(run(capsys, "doctor", "--json")[1])[0]["name"] == "Python"
    broken = Finding(name="engine", status="fault", found="smoke", way_out="open the window")
    monkeypatch.setattr("edgekit.device.__main__.doctor", lambda: (broken,))
    code, out, _ = run(capsys, "doctor")
    assert code == 4
    assert out == "fault engine: smoke\n      -> open the window\n"


def test_faults_of_the_input_end_with_4_and_their_text(capsys, tmp_path, bundle):
    code, _, err = run(capsys, "check", tmp_path / "none")
    assert code == 4
    assert err.startswith("error: no such folder or file\n  where: ")
    assert run(capsys, "run", bundle, tmp_path / "none.png")[0] == 4


def test_a_wrong_command_line_ends_with_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fly"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_runs_as_a_module(bundle):
    done = subprocess.run(
        [sys.executable, "-m", "edgekit.device", "inspect", str(bundle)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
