"""A model card: Markdown with the metadata of the Hugging Face Hub in front.

The metadata follow the Hub's model card specification (https://github.com/huggingface/hub-docs, modelcard.md):
`model-index` holds the test split's metric, and what is not known is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from edgekit.report.comment import escaped
from edgekit.report.headline import caveat, chosen, is_original, original, sentence
from edgekit.report.table import markdown, stage_table
from edgekit.report.usage import fenced, use

IMAGE_TASKS = {"classification": "image-classification", "multilabel": "image-classification"}
METRIC_TYPES = {"top-1 accuracy": "accuracy", "accuracy": "accuracy", "F1": "f1", "mean squared error": "mse"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card says that a report does not hold; None where it is not known.

    Args:
        license: of the weights, as the Hub names it: `apache-2.0`, `mit`, `other`.
        base_model: the model on the Hub that was compressed.
        pipeline_tag: what the model does, as the Hub names it: `image-classification`.
        dataset: name of the data that it was tested on.
    """

    license: str | None = None
    base_model: str | None = None
    pipeline_tag: str | None = None
    dataset: str | None = None


def facts_of(workload: Mapping[str, Any], facts: CardFacts | None = None) -> CardFacts:
    """`facts`, with what the workload tells (as `front.json` has it) where they are silent.

    >>> facts_of({"model": "timm:resnet18.a1_in1k", "task": "classification", "mean": [0.5]}).base_model
    'timm/resnet18.a1_in1k'
    """
    facts = facts or CardFacts()
    model, is_image = str(workload.get("model", "")), _is_of_images(workload)
    base = f"timm/{model.removeprefix('timm:')}" if re.fullmatch(r"timm:[\w.-]+", model) else None
    tag = IMAGE_TASKS.get(str(workload.get("task"))) if is_image else None
    test = str(workload.get("test", ""))
    return CardFacts(
        license=facts.license,
        base_model=facts.base_model or base,
        pipeline_tag=facts.pipeline_tag or tag,
        dataset=facts.dataset or (PurePath(test).name if test else None),
    )


def _is_of_images(workload: Mapping[str, Any]) -> bool:
    given = workload.get("preprocessing") or {}
    return bool(workload.get("image_size") or workload.get("mean") or given.get("kind") == "image")


def card(report: Mapping[str, Any], facts: CardFacts | None = None, about: Mapping[str, Any] | None = None) -> str:
    """The card of the file that a run chose: YAML front matter, then Markdown.

    Args:
        report: as `report.json` holds it.
        facts: what else is known; see `facts_of`.
        about: as the bundle's `edgekit/bundle.json` holds it, for code with its own names in it.
    """
    facts = facts or CardFacts()
    headers, cells = stage_table(report)
    bundle = PurePath(str(report.get("bundle", ""))).name or f"{report['name']}.edgekit"
    lines = [
        "---",
        *yaml_lines(_metadata(report, facts)),
        "---",
        "",
        f"# {escaped(report['name'])}",
        "",
        escaped(" ".join(filter(None, (sentence(report), caveat(report))))),
        "",
        *(_short_use(bundle) if about is None else use(about, bundle)),
        "## Figures",
        "",
        _conditions(report),
        "",
        markdown([escaped(each) for each in headers], [[escaped(each) for each in line] for line in cells]),
        "",
        "## Limits",
        "",
        *[f"- {escaped(limit)}" for limit in _limits(report)],
        "",
    ]
    return "\n".join(lines)


def _short_use(bundle: str) -> list[str]:
    code = (
        f"from edgekit.device import load  # numpy and onnxruntime, nothing else\n\nmodel = load({json.dumps(bundle)})"
    )
    return ["## Use it", "", *fenced("python", code), ""]


def _conditions(report: Mapping[str, Any]) -> str:
    cpu = (report["environment"].get("before") or {}).get("cpu") or {}
    n, threads = chosen(report)["metric"].get("n", "–"), report["settings"].get("threads", "–")
    return (
        f"Test split, {n} samples, which no decision has looked at. In brackets: 95 % intervals. "
        f"Latency of one sample in ONNX Runtime on {escaped(str(cpu.get('model') or 'an unknown processor'))}, "
        f"{threads} thread(s), all files interleaved in one run."
    )


def _metadata(report: Mapping[str, Any], facts: CardFacts) -> dict[str, Any]:
    row = chosen(report)
    int8 = "plan" in (row.get("details") or {}) or "int8" in row["stage"]
    tags = ["onnx", "onnxruntime", "edgekit", *(["int8", "quantized"] if int8 else [])]
    tags += ["pruned"] if row["parameters"] < original(report)["parameters"] else []
    found: dict[str, Any] = {
        "library_name": "onnx",
        "pipeline_tag": facts.pipeline_tag,
        "license": facts.license,
        "base_model": facts.base_model,
        "base_model_relation": "quantized" if facts.base_model and not is_original(report) else None,
        "tags": tags,
        "model-index": [
            {
                "name": report["name"],
                "results": [
                    {
                        "task": {"type": facts.pipeline_tag or "other"},
                        "dataset": {
                            "name": facts.dataset or "unnamed",
                            "type": re.sub(r"[^a-z0-9]+", "-", (facts.dataset or "unnamed").lower()).strip("-"),
                            "split": "test",
                        },
                        "metrics": [
                            {
                                "type": METRIC_TYPES.get(report["metric"], report["metric"]),
                                "name": f"{report['metric']} ({report['unit']})",
                                "value": round(row["metric"]["value"], 4),
                            },
                            {
                                "type": "latency",
                                "name": "median latency of one sample (ms)",
                                "value": round(row["latency"]["value"], 6),
                            },
                        ],
                    }
                ],
            }
        ],
    }
    return {key: value for key, value in found.items() if value is not None}


def _limits(report: Mapping[str, Any]) -> list[str]:
    row = chosen(report)
    same = f"{row['agreement']['value']:.1f} % of the test samples as the original does"
    limits = [
        f"It answers {same}; where the two differ, either may be right.",
        "What the original gets wrong, and whom its errors harm, has not changed for the better.",
        "Latencies hold for the processor that they were measured on.",
    ]
    if (target := report["settings"].get("target")) and "int8" in row["stage"]:
        others = [each["target"] for each in report.get("others", ()) if each["file"] is not None]
        limits.append(
            f"The int8 file was made for {target}; the bundle has others for {', '.join(others)}, which were not timed."
            if others
            else f"The int8 file was made for {target}; on other processors it may be slow."
        )
    return [*limits, *report.get("notes", ())]


def yaml_lines(value: Any, indent: int = 0) -> list[str]:
    r"""Block-style YAML of nested dicts and lists; texts are quoted, so that none is taken for something else.

    >>> yaml_lines({"tags": ["a", "no"], "index": [{"name": "x: y", "value": 1.5}]})
    ['tags:', '- "a"', '- "no"', 'index:', '- name: "x: y"', '  value: 1.5']
    """
    space = " " * indent
    lines: list[str] = []
    if isinstance(value, Mapping):
        for key, each in value.items():
            lines += [f"{space}{key}:{_after_key(each)}", *_below(each, indent if _is_list(each) else indent + 2)]
        return lines
    for each in value:
        if isinstance(each, Mapping):
            first, *rest = yaml_lines(each, indent + 2)
            lines += [f"{space}- {first.strip()}", *rest]
        else:
            lines.append(f"{space}- {_scalar(each)}")
    return lines


def _after_key(value: Any) -> str:
    return "" if isinstance(value, Mapping) or _is_list(value) else f" {_scalar(value)}"


def _below(value: Any, indent: int) -> list[str]:
    return yaml_lines(value, indent) if isinstance(value, Mapping) or _is_list(value) else []


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _scalar(value: Any) -> str:
    """JSON's scalars are YAML's, but for characters that YAML wants escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text
    )
