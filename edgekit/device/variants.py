"""Which of a bundle's files runs on this machine, and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgekit.device.environment import isa_target
from edgekit.device.manifest import VariantInfo
from edgekit.device.session import PROVIDERS
from edgekit.errors import ProviderError, did_you_mean

_RUNS = {
    # VNNI instructions are on top of AVX2; the AVX2 file is right there too, only less precise.
    "x86-vnni": ("x86-vnni", "x86-avx2", "any"),
    "x86-avx2": ("x86-avx2", "any"),
    "arm64": ("arm64", "any"),
}
_SATURATES = frozenset({"x86-avx2", "x86"})
_EIGHT_BITS = frozenset({"x86-vnni", "arm64", "tensorrt"})
_NO_16_BIT_SUMS = (("session.x64quantprecision", "1"),)
"""VPMADDUBSW adds pairs of 8-bit products in 16 bits, which overflow; this makes ONNX Runtime avoid it, at the price of
the speed (ResNet-20 on Zen 3: 1.5x of fp32 with such sums, 1.0x without)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant, the reason it was taken, and what ONNX Runtime must be told.

    `compromise` says what is wrong with it here; empty where it was made for this machine.
    """

    variant: VariantInfo
    reason: str
    compromise: str = ""
    config: tuple[tuple[str, str], ...] = ()


def rank(
    variants: Sequence[VariantInfo], *, provider: str | None, available: Collection[str], isa: str
) -> tuple[Choice, ...]:
    """The variants that can run here, best first.

    Those made for this machine come first, in the bundle's order, which is its author's preference. Then, as
    compromises, those for another processor: float before int8.

    Args:
        variants: the bundle's, in order.
        provider: `cpu`, `cuda` or `tensorrt`; None takes any that is there.
        available: ONNX Runtime's names of the providers it was built with.
        isa: this processor, from `edgekit.device.isa_target()`.

    Raises:
        ProviderError: the provider is unknown or absent, or the bundle has nothing for it.
    """
    if provider is not None and provider not in PROVIDERS:
        raise ProviderError(
            f"unknown provider {provider!r}",
            where="provider",
            rule=f"one of {', '.join(PROVIDERS)}",
            way_out=did_you_mean(provider, PROVIDERS),
        )
    if provider is not None and PROVIDERS[provider] not in available:
        raise ProviderError(
            f"provider {provider!r} is not in this onnxruntime",
            where="provider",
            rule=f"available here: {', '.join(sorted(available))}",
            way_out="install onnxruntime-gpu instead of onnxruntime for CUDA; `python -m edgekit.device doctor` helps",
        )
    here = [
        variant
        for variant in variants
        if PROVIDERS[variant.provider] in available and provider in {None, variant.provider}
    ]
    if not here:
        raise ProviderError(
            f"no variant runs on {provider or 'a provider of this onnxruntime'}",
            where="bundle",
            rule=f"it has {', '.join(map(str, variants))}",
            way_out="ask for a provider that the bundle has a variant for, or bundle the model for this one",
        )
    fits = [variant for variant in here if _fits(variant, isa)]
    others = sorted((variant for variant in here if not _fits(variant, isa)), key=_is_int8)
    made_for = [Choice(variant, f"made for {variant.target}; this processor is {isa}") for variant in fits]
    return (*made_for, *(_compromise(variant, isa) for variant in others))


def exact_config(target: str, isa: str | None = None) -> dict[str, str]:
    """What ONNX Runtime is told here, so that an int8 file for another processor gives the numbers that it gives there.

    Nothing where sums of 8-bit products are right here, too, or are none of the file's.

    Args:
        target: what the file was made for.
        isa: this processor, as `edgekit.device.isa_target` names it by default.

    >>> exact_config("x86-vnni", isa="x86-avx2")
    {'session.x64quantprecision': '1'}
    >>> exact_config("x86-avx2", isa="x86-avx2"), exact_config("x86-vnni", isa="x86-vnni")
    ({}, {})
    """
    return dict(_NO_16_BIT_SUMS) if target in _EIGHT_BITS and (isa or isa_target()) in _SATURATES else {}


def _fits(variant: VariantInfo, isa: str) -> bool:
    return variant.provider != "cpu" or variant.target in _RUNS.get(isa, ("any",))


def _is_int8(variant: VariantInfo) -> bool:
    return "int8" in variant.precision


def _compromise(variant: VariantInfo, isa: str) -> Choice:
    text = (
        f"it was made for {variant.target}, and this processor is {isa}: it may be slower, and its outputs may differ"
    )
    config: tuple[tuple[str, str], ...] = ()
    if _is_int8(variant) and isa in _SATURATES:
        config = _NO_16_BIT_SUMS
        text += "; ONNX Runtime is told to avoid the 16-bit sums that would overflow without VNNI"
    return Choice(variant, "nothing in the bundle was made for this processor", text, config)
