"""What `edgekit search`, `worker` and `bundle --point` say when they cannot begin."""

import pytest


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["bundle", "--point", "1"], "no finished run in edgekit-runs"),
        (["bundle"], "not given: MODEL, --train, --test"),
        (["bundle", "--run", "/nowhere", "--point", "1"], "no front.json here"),
        (["bundle", "m:f", "--train", "m:f", "--test", "m:f", "-f", "fp32=m.onnx", "--also", "arm64"], "got 'arm64'"),
        (["search", "m:f", "--train", "m:f", "--test", "m:f", "--aims", "drop"], "the only aim is the drop"),
        (["search", "m:f", "--train", "m:f", "--test", "m:f", "--aims", "speed,drop"], "got speed, drop"),
        (["search", "m:f"], "not given: --train, --test"),
    ],
)
def test_a_call_that_cannot_work_is_refused(edgekit, tmp_path, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    answer = edgekit(*words)
    assert answer.code == 4
    assert problem in answer.said


def test_a_worker_without_a_study_says_what_to_start(edgekit, tmp_path):
    answer = edgekit("worker", "--study", tmp_path / "study.journal", "--run", tmp_path)
    assert answer.code == 4
    assert "start `edgekit search` with this storage first" in answer.said
