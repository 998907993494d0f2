"""A name that there is not brings up the nearest one that there is."""

import pytest

from edgekit.errors import EdgekitError, did_you_mean


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["compres"], "Did you mean 'compress'"),
        (["compress", "--device", "x86-vni"], "did you mean x86-vnni?"),
        (["compress", "--importance", "tailor"], "did you mean taylor?"),
        (["compress", "--max-dop", "1"], "did you mean --max-drop?"),
        (["validate", "-f", "x.onnx", "--split", "selecton"], "did you mean selection?"),
    ],
)
def test_of_the_command_line(edgekit, words, near):
    answer = edgekit(*words)
    assert answer.code == 2
    assert near in answer.said


def test_a_device_that_resembles_none_brings_up_nothing(edgekit):
    answer = edgekit("compress", "--device", "z80")
    assert answer.code == 2
    assert "mean" not in answer.said
    assert "'x86-vnni', 'x86-avx2', 'arm64'" in answer.said


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["quantize", "{model}", "{data}", "-f", "{onnx}", "--target", "x86-vnni,arm46"], "did you mean arm64?"),
        (["export", "{net}:modl", "{data}"], "did you mean model?"),
        (["export", "{model}", "{data}", "--task", "clasification"], "did you mean classification?"),
        (["prune", "{model}", "{data}", "--drop-block", "blok"], "did you mean block?"),
        (["bench", "{onnx}", "--provider", "cudaa"], "did you mean cuda?"),
    ],
)
def test_of_what_the_users_files_hold(edgekit, project, tiny, words, near):
    given = {"{model}": [f"{project.path}:model"], "{net}:modl": [f"{project.path}:modl"], "{data}": project.data}
    given["{onnx}"] = [str(tiny)]
    answer = edgekit(*[part for word in words for part in given.get(word, [word])])
    assert answer.code == 4
    assert f"way out: {near}" in answer.err


def test_the_nearest_of_numbers_and_names():
    assert did_you_mean(65, [64, 8]) == did_you_mean("65", ["64", "8"])
    assert did_you_mean("conv_2", ["conv_1", "gemm"]) == "did you mean conv_1?"
    assert did_you_mean("relu", ["conv", "gemm"], "look") == "look"
    assert did_you_mean("tpu", ["cpu", "cuda"]) == ""
    assert str(EdgekitError("x", way_out=did_you_mean("relu", []))) == "x"
