"""What a model costs before it is warm: load time, first run, peak memory, size on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.device.feeds import save_feeds
from edgekit.errors import EdgekitError, ProviderError
from edgekit.spec import Feeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One cold start.

    Attributes:
        load_ms: from the file to a session that is ready.
        first_ms: the first run.
        peak_bytes: the most memory the process ever held (resident), Python, numpy and ONNX Runtime included.
        base_bytes: what it held before it touched the model; the difference is the model's own.
        size_bytes: the file.
    """

    load_ms: float
    first_ms: float
    peak_bytes: int
    base_bytes: int
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


def footprint(
    model: Path, feeds: Feeds, *, provider: str = "cpu", threads: int = 1, timeout_s: float = 600.0
) -> Footprint:
    """Load `model` and run it once in a fresh process, which is how a device meets it.

    Args:
        model: an ONNX file.
        feeds: its inputs by name.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads.
        timeout_s: how long the process may take.

    Raises:
        EdgekitError: the file is missing, or the process failed; the text is the process's own.
        ProviderError: the provider is unknown, absent, or fell back to the CPU.
    """
    model = Path(model)
    if not model.is_file():
        raise EdgekitError("no such file", where=str(model), rule="an ONNX file")
    with tempfile.TemporaryDirectory(prefix="edgekit-footprint-") as temporary:
        inputs, result = Path(temporary, "feeds.npz"), Path(temporary, "result.json")
        save_feeds(inputs, feeds)
        child = [sys.executable, "-m", "edgekit.device.cold_start"]
        arguments = [str(model.resolve()), str(inputs), str(result), provider, str(threads)]
        _run([*child, *arguments], model, timeout_s)
        answer = _answer(result, model)
    return Footprint(**answer)


def _run(command: list[str], model: Path, timeout_s: float) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter and this package
            command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EdgekitError(
            f"the model did not load and run within {timeout_s:g} s", where=str(model), rule="a cold start that ends"
        ) from error
    if done.returncode:
        raise EdgekitError(
            f"the process that loaded the model {ending(done.returncode)}",
            where=str(model),
            rule="a cold start that succeeds",
            way_out=last_line(done.stderr) or "look for the out-of-memory killer in the system's log",
        )


def _answer(result: Path, model: Path) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(result.read_text())
    except (OSError, ValueError) as error:
        raise EdgekitError("the process left no result", where=str(model), rule="a cold start that succeeds") from error
    if "error" not in answer:
        return answer
    kind = ProviderError if answer.pop("kind") == ProviderError.__name__ else EdgekitError
    raise kind(answer["error"], where=answer["where"] or str(model), rule=answer["rule"], way_out=answer["way_out"])


def child_environment() -> dict[str, str]:
    """The environment of a child process of this interpreter that is to import this very package."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def last_line(text: str) -> str:
    """The last line of what a process said; empty where it said nothing."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
