"""The command that makes a run again, from what the run recorded."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any


def compress_command(report: Mapping[str, Any], workload: Mapping[str, Any]) -> str:
    """`edgekit compress …` with every option that decided the result, shell-quoted, in the workload's folder.

    Args:
        report: as `report.json` holds it.
        workload: as `WorkloadConfig.to_dict` gives it; without it the command is not known, and the answer is empty.

    >>> workload = {"model": "net.py:model", "train": "a b", "test": "t.npz", "folder": "/p", "seed": 1}
    >>> report = {"name": "net", "budget": {"max_drop_points": 0.5, "time_s": 60.0}, "settings": {"threads": 1}}
    >>> compress_command(report, workload)
    "cd /p && edgekit compress net.py:model --train 'a b' --test t.npz --name net --seed 1 --max-drop 0.5 --time 60s \
--threads 1"
    """
    if not workload:
        return ""
    words = ["edgekit", "compress", str(workload["model"])]
    for option, value in {**_of_workload(report, workload), **_of_budget(report), **_of_settings(report)}.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None and each != "":
                words += [option, _word(each)]
    command = shlex.join(words)
    folder = workload.get("folder")
    return f"cd {shlex.quote(str(folder))} && {command}" if folder else command


def _of_workload(report: Mapping[str, Any], workload: Mapping[str, Any]) -> dict[str, Any]:
    def numbers(key: str, separator: str = ",") -> str:
        return separator.join(map(_word, workload.get(key) or ()))

    return {
        "--weights": workload.get("weights"),
        "--trust-pickle": workload.get("trust_pickle"),
        "--train": workload["train"],
        "--test": workload["test"],
        "--selection": workload.get("selection"),
        "--task": None if workload.get("task") == "classification" else workload.get("task"),
        "--labels": numbers("labels"),
        "--image-size": numbers("image_size", "x"),
        "--mean": numbers("mean"),
        "--std": numbers("std"),
        "--preprocessing": _object(workload.get("preprocessing")),
        "--postprocessing": _object(workload.get("postprocessing")),
        "--vocabulary": workload.get("vocabulary"),
        "--dynamic": list(workload.get("dynamic") or ()),
        "--limit-train": workload.get("limit_train"),
        "--limit-test": workload.get("limit_test"),
        "--name": report["name"],
        "--seed": workload.get("seed"),
    }


def _of_budget(report: Mapping[str, Any]) -> dict[str, Any]:
    budget = report["budget"]
    size = budget.get("max_size_bytes")
    return {
        "--max-drop": budget.get("max_drop_points"),
        "--max-latency-ms": budget.get("max_latency_ms"),
        "--max-size-mb": None if size is None else size / 1e6,
        "--max-churn": budget.get("max_churn"),
        "--max-worst-class-drop": budget.get("max_worst_class_drop"),
        "--max-ece-rise": budget.get("max_ece_rise"),
        "--max-robustness-drop": budget.get("max_robustness_drop"),
        "--confidence": budget.get("confidence"),
        "--time": _seconds(budget.get("time_s")),
    }


def _of_settings(report: Mapping[str, Any]) -> dict[str, Any]:
    settings = report["settings"]
    return {
        "--device": settings.get("target"),
        "--also": ",".join(settings.get("also") or ()) or None,
        "--threads": settings.get("threads"),
        "--costs": settings.get("costs"),
        "--on": settings.get("host"),
        "--python": settings.get("python") if settings.get("host") else None,
        "--provider": ",".join(settings.get("providers") or ()),
        "--rounds": settings.get("max_rounds"),
        "--resolution": list(settings.get("resolutions") or ()),
        "--epochs": settings.get("recovery_epochs"),
        "--learning-rate": settings.get("learning_rate"),
        "--grid": settings.get("grid"),
        "--importance": settings.get("importance"),
        "--ranges": settings.get("ranges"),
        "--placement": settings.get("placement"),
        "--optimizer": settings.get("optimizer"),
        "--batch-size": settings.get("batch_size"),
        "--augment": settings.get("augment"),
        "--robustness-time": _seconds(settings.get("robustness_time_s")),
    }


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{_word(value)}s"


def _object(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _word(value: object) -> str:
    """A number without digits that say nothing: 60.0 is 60."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def config_entries(workload: Mapping[str, Any]) -> dict[str, Any]:
    """What no option of the command sets: entries of an `edgekit.toml` that it needs beside it."""
    usual = {"selection_from": "test", "calibration_size": 512, "shorter_side": None}
    return {key: workload[key] for key, value in usual.items() if workload.get(key, value) != value}
