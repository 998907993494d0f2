"""The page: totals against the bar, causes, and a row for each network."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coverage_study.causes import cause

Record = Mapping[str, Any]

STEPS = ("build", "export", "prune", "export pruned", "int8")
BARS = {"export": 0.95, "int8": 0.95, "prune": 0.85}
FAMILIES = 150
"""What is asked of timm's lines: so many tried, and these shares pass."""
SOURCES = {"timm": "timm, one network for each line", "torchvision": "torchvision", "transformers": "transformers"}


def passed(record: Record, step: str) -> bool:
    """Whether a network got through a step."""
    return bool(record["stages"].get(step, {}).get("status") == "passed")


def summary(records: Sequence[Record]) -> str:
    """The totals, for the terminal.

    >>> summary([{"source": "timm", "key": "a", "stages": {"build": {"status": "passed"}}}]).splitlines()[0]
    'timm: 1 tried; build 1, export 0, prune 0, export pruned 0, int8 0; unsound 0'
    """
    lines = []
    for source in SOURCES:
        found = [record for record in records if record["source"] == source]
        counts = ", ".join(f"{step} {sum(passed(record, step) for record in found)}" for step in STEPS)
        lines.append(f"{source}: {len(found)} tried; {counts}; unsound {len(list(unsound(found)))}")
    return "\n".join(lines)


def unsound(records: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    """What a gate of edgekit let through and the tool's own comparison did not: network, step, reason."""
    for record in records:
        for step, stage in record["stages"].items():
            if stage["status"] == "unsound":
                yield record["key"], step, stage["reason"]


def page(records: Sequence[Record], total: int) -> str:
    """The whole page, in Markdown."""
    parts = [*_head(len(records), total), *_bar(records), *_causes(records), *_others(records), *_frozen(records)]
    for source, title in SOURCES.items():
        parts += _table(title, [record for record in records if record["source"] == source])
    return "\n".join(parts) + "\n"


_INTRODUCTION = """# Coverage: other people's architectures

Networks of timm, torchvision and transformers with random weights, through everything, each in a process with limits.
{about}`python tools/coverage.py` goes on and makes this page again; `results.json` has all that was found.

- *export*: `edgekit.export` with its parity gate; then the tool compares file and model on other images.
- *prune*: 30 % of every width that can go, with the proof; then the tool masks the same channels itself and compares on
  other images; normalizations over channels count what is left, in both. Something must have gone. *free*: share of the
  output channels of all layers with weights that may go. Where no width can go, every third residual branch goes
  instead, against a model whose branches end in zeros.
- *again*: the pruned model exported; its file must be smaller.
- *int8*: `edgekit.quantize` on 8 random images, then run on 8 others: finite, at least 10 dB or 70 % of first classes
  as in fp32, and a smaller file; and what edgekit says of its noise has to hold for the sample in the middle of them.

Images are random and as small as a network takes, 64 to 256 pixels. Weights are those of a fresh network with its zeros
and ones shaken up and its BatchNorm statistics settled, so that no comparison is of nothing with nothing. Detectors are
taken up to their heads: what chooses boxes is no part of the network. A line of timm is represented by its smallest
network; of the blocks of a Transformer, all alike, three are built where its builder lets one say so (*depth 3*).
Of transformers every type that classifies is built small (64 wide, two layers), saved, and read by `hf:`; texts are of
32 tokens, one of them padded, sounds are samples or features.
"""

_OTHERS = """## Beside Torch-Pruning

The same networks and weights, Torch-Pruning {version}, 30 % of every width, the last layer left alone, heads of
attentions named to it, and nothing mended by hand afterwards, as its examples do. Its channels are masked in the
original by this tool, in float64, and normalizations over channels count what is left, as with edgekit. A result that
runs and is *not* equivalent has changed more than what its channels gave: others were cut than those that belong to
them. It says nothing of it.
"""


def _head(tried: int, total: int) -> list[str]:
    whole = "" if tried == total else f"**{tried} of {total} networks of the catalogue have been tried so far.**\n"
    return [_INTRODUCTION.format(about=whole)]


def _bar(records: Sequence[Record]) -> list[str]:
    timm = [record for record in records if record["source"] == "timm"]
    lines = ["## Against the bar", "", "| what is asked of timm's lines | found | |", "|---|---|---|"]
    lines.append(f"| at least {FAMILIES} tried | {len(timm)} | {_mark(len(timm) >= FAMILIES)} |")
    for step, share in BARS.items():
        count = sum(passed(record, step) for record in timm)
        found = count / len(timm) if timm else 0.0
        mark = _mark(found >= share) if len(timm) >= FAMILIES else "too few to tell"
        name = "prune, with the proof" if step == "prune" else step
        lines.append(f"| {share:.0%} pass {name} | {found:.1%} ({count} of {len(timm)}) | {mark} |")
    silent = list(unsound(records))
    lines.append(f"| no wrong result that no gate saw | {len(silent)} | {_mark(not silent)} |")
    lines += [f"\n{key}, {step}: {reason}" for key, step, reason in silent]
    for source in ("torchvision", "transformers"):
        other = [record for record in records if record["source"] == source]
        counts = ", ".join(f"{step} {sum(passed(record, step) for record in other)}" for step in STEPS)
        lines += ["", f"Of {len(other)} networks of {source} pass: {counts}."] if other else []
    return [*lines, ""]


def _mark(holds: bool) -> str:  # noqa: FBT001 - a word for a fact
    return "holds" if holds else "**missed**"


def _causes(records: Sequence[Record]) -> list[str]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in records:
        for step, stage in record["stages"].items():
            if stage["status"] != "passed":
                found[step, cause(stage)].append(record["name"])
    if not found:
        return []
    lines = ["## What fails, by cause", "", "| step | cause | networks |", "|---|---|---|"]
    ordered = sorted(found.items(), key=lambda entry: (STEPS.index(entry[0][0]), -len(entry[1])))
    lines += [f"| {step} | {why} | {len(names)}: {', '.join(names)} |" for (step, why), names in ordered]
    return [*lines, ""]


def _frozen(records: Sequence[Record]) -> list[str]:
    networks: Counter[str] = Counter()
    for record in records:
        networks.update(record.get("analysis", {}).get("operators", []))
    if not networks:
        return []
    lines = ["## Operators without a rule", "", "What they touch stays; in so many of the networks:", ""]
    return [
        *lines,
        "| operator | networks |",
        "|---|---|",
        *(f"| `{n}` | {c} |" for n, c in networks.most_common(30)),
        "",
    ]


def _others(records: Sequence[Record]) -> list[str]:
    rows = [record for record in records if "torch-pruning" in record]
    if not rows:
        return []
    outcomes = Counter(record["torch-pruning"]["outcome"] for record in rows)
    ours = sum(passed(record, "prune") for record in rows)
    both = [
        (record["stages"]["prune"]["parameters"] / record["parameters"], record["torch-pruning"]["share"])
        for record in rows
        if passed(record, "prune") and record["torch-pruning"].get("outcome") == "equivalent"
    ]
    version = next((record["torch-pruning"]["version"] for record in rows if "version" in record["torch-pruning"]), "")
    lines = [
        _OTHERS.format(version=version),
        f"| of {len(rows)} networks | |",
        "|---|---|",
        f"| edgekit: pruned, equal to the masked one | {ours} |",
        *(f"| Torch-Pruning: {outcome} | {count} |" for outcome, count in outcomes.most_common()),
        "",
    ]
    if both:
        ours_left, theirs_left = (sum(pair[index] for pair in both) / len(both) for index in (0, 1))
        about = f"edgekit {ours_left:.0%}, Torch-Pruning {theirs_left:.0%}"
        lines += [f"Where both are equivalent ({len(both)}), the share of parameters left: {about}.", ""]
    return lines


def _table(title: str, records: Sequence[Record]) -> list[str]:
    if not records:
        return []
    lines = [f"## {title}", "", "| network | pixels | parameters | export | prune | free | again | int8 | remarks |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    return [*lines, *(_row(record) for record in records), ""]


def _row(record: Record) -> str:
    stages = record["stages"]
    prune = stages.get("prune", {})
    cells = [
        record["name"],
        str(record.get("side", "")),
        f"{record['parameters'] / 1e6:.1f} M" if "parameters" in record else "",
        _cell(record, "export", stages.get("export", {}).get("exporter", "")),
        _cell(record, "prune", f"{prune.get('parameters', 0) / max(record.get('parameters', 1), 1):.0%} left"),
        f"{record['analysis']['share']:.0%}" if "analysis" in record else "",
        _cell(record, "export pruned", "yes"),
        _cell(record, "int8", _int8(stages.get("int8", {}))),
        "; ".join(_remarks(record)),
    ]
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _cell(record: Record, step: str, text: str) -> str:
    stage = record["stages"].get(step)
    if stage is None:
        return "–"
    return text if stage["status"] == "passed" else f"**{'UNSOUND' if stage['status'] == 'unsound' else 'no'}**"


def _int8(stage: Mapping[str, Any]) -> str:
    if "sqnr_db" not in stage:
        return ""
    return (
        f"{stage['scheme']}, {stage['sqnr_db']:.0f} dB, {stage['agreement']:.0%}, {stage['size_ratio']:.0%} of the size"
    )


def _remarks(record: Record) -> Iterator[str]:
    depth = record.get("options", {}).get("depth")
    if depth:
        yield f"depth {depth}"
    removed = record["stages"].get("prune", {}).get("removed")
    if removed:
        yield f"pruned by depth: {removed} branches"
    if record["stages"].get("export", {}).get("batch_fixed"):
        yield "fixes the number of images"
    for step, stage in record["stages"].items():
        if stage["status"] != "passed":
            yield f"{step}: {str(stage.get('reason', ''))[:160]}"
    analysis = record.get("analysis", {"frozen": [], "share": 1.0, "groups": 1, "blocks": 0})
    if analysis["blocks"] and not analysis["groups"]:
        yield f"{analysis['blocks']} whole blocks can go"
    frozen = [(what, why) for what, why in analysis["frozen"] if not what.startswith("operator")]
    if analysis["share"] < 0.9:
        yield "stays: " + ", ".join(f"{what} ({why[:60]})" for what, why in frozen[:2])
