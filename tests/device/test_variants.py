from __future__ import annotations

import pytest

from edgekit.device.manifest import VariantInfo
from edgekit.device.variants import rank
from edgekit.errors import ProviderError

CPU, GPU = ["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]


def variant(name, provider, precision, target):
    return VariantInfo(name=name, provider=provider, precision=precision, target=target, tolerance={})


ALL = (
    variant("cuda-fp16", "cuda", "fp16", "cuda"),
    variant("vnni", "cpu", "int8", "x86-vnni"),
    variant("avx2", "cpu", "int8", "x86-avx2"),
    variant("arm", "cpu", "int8", "arm64"),
    variant("fp32", "cpu", "fp32", "any"),
)


def names(variants, **where):
    options = {"provider": None, "available": CPU, "isa": "x86-vnni", **where}
    return [(choice.variant.name, bool(choice.compromise)) for choice in rank(variants, **options)]


@pytest.mark.parametrize(
    ("where", "first", "fitting"),
    [
        ({}, "vnni", ["vnni", "avx2", "fp32"]),
        ({"isa": "x86-avx2"}, "avx2", ["avx2", "fp32"]),
        ({"isa": "arm64"}, "arm", ["arm", "fp32"]),
        ({"isa": "riscv64"}, "fp32", ["fp32"]),
        ({"available": GPU}, "cuda-fp16", ["cuda-fp16", "vnni", "avx2", "fp32"]),
        ({"available": GPU, "provider": "cpu"}, "vnni", ["vnni", "avx2", "fp32"]),
        ({"available": GPU, "provider": "cuda"}, "cuda-fp16", ["cuda-fp16"]),
    ],
)
def test_those_made_for_this_machine_come_first_in_the_bundles_order(where, first, fitting):
    ranked = names(ALL, **where)
    assert ranked[0] == (first, False)
    assert [name for name, compromise in ranked if not compromise] == fitting


def test_a_compromise_is_said_to_be_one_and_is_told_to_avoid_overflow():
    (choice,) = rank(ALL[1:2], provider=None, available=CPU, isa="x86-avx2")
    assert "made for x86-vnni, and this processor is x86-avx2" in choice.compromise
    assert choice.config == (("session.x64quantprecision", "1"),)
    (elsewhere,) = rank(ALL[1:2], provider=None, available=CPU, isa="arm64")
    assert elsewhere.compromise
    assert elsewhere.config == ()


@pytest.mark.parametrize(
    ("variants", "where", "text"),
    [
        (ALL, {"provider": "npu"}, "unknown provider 'npu'"),
        (ALL, {"provider": "cuda"}, "provider 'cuda' is not in this onnxruntime"),
        (ALL[:1], {}, "no variant runs on a provider of this onnxruntime"),
        (ALL[1:], {"provider": "cuda", "available": GPU}, "no variant runs on cuda"),
    ],
)
def test_what_cannot_run_is_an_error(variants, where, text):
    with pytest.raises(ProviderError, match=text):
        names(variants, **where)
