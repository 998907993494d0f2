"""The files that are compared: made by quantizers or given, tried, scored, and held against their own simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantizer_benchmark.faults import NoFile, said
from quantizer_benchmark.inputs import Data
from quantizer_benchmark.processes import Job, Process, make
from quantizer_benchmark.quantizers import Quantizer

from edgekit.errors import EdgekitError, QuantizeError
from edgekit.progress import Progress, Step
from edgekit.spec import Feeds, IOSpec

if TYPE_CHECKING:  # It needs torch, and --help need not wait for it.
    from edgekit.validate import Score

GIVEN = "given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is found out about a file apart from its speed.

    Args:
        score: where there is a metric.
        steps: by how many quantization steps a kernel of ONNX Runtime differs from what the file says, at most; None
            where the file has no 8-bit activations, or cannot be judged.
        unjudged: why it cannot.
    """

    score: Score | None
    steps: int | None
    unjudged: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that runs."""

    name: str
    made_by: str
    how: str
    path: Path
    judgement: Judgement
    process: Process | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A quantizer that made no file that runs, and why."""

    name: str
    made_by: str
    how: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Tries files: all on the same data and under the same conditions.

    Args:
        spec: inputs and outputs that all files share.
        data: what is run and scored.
        threads: of ONNX Runtime.
        seed: of the bootstrap.
        progress: told while a file is scored.
    """

    spec: IOSpec
    data: Data
    threads: int
    seed: int
    progress: Progress = field(repr=False)

    def __call__(self, path: Path) -> Judgement:
        """Run, score and simulate one file; whatever ONNX Runtime raises is passed on."""
        _run_once(path, self.data.timed, self.threads)
        score = self._score(path)
        try:
            return Judgement(score=score, steps=_steps(path, self.data.calibration[0], self.threads))
        except QuantizeError as error:
            return Judgement(score=score, steps=None, unjudged=said(error))

    def _score(self, path: Path) -> Score | None:
        if self.data.workload is None:
            return None
        from edgekit.validate import score

        return score(
            path,
            self.data.workload.splits.selection,
            self.data.workload.task,
            spec=self.spec,
            threads=self.threads,
            seed=self.seed,
            progress=self.progress,
        )


def given(name: str, path: Path, judge: Judge) -> Candidate:
    """A file that was made before.

    Raises:
        EdgekitError: ONNX Runtime does not run it.
    """
    try:
        return Candidate(name=name, made_by=GIVEN, how="", path=path, judgement=judge(path))
    except EdgekitError:
        raise
    except Exception as error:
        raise EdgekitError(
            f"ONNX Runtime does not run it: {said(error)}",
            where=str(path),
            rule="an ONNX file that takes the inputs of the fp32 file",
            way_out="try `edgekit bench` on it alone",
        ) from error


def made(quantizer: Quantizer, job: Job, path: Path, python: Path | None, judge: Judge) -> Candidate | Missing:
    """Make the file and try it; whatever goes wrong is the quantizer's row, and the others go on."""
    about = {"name": quantizer.name, "made_by": quantizer.made_by, "how": quantizer.how}
    judge.progress(Step(f"making {quantizer.name}", 0, 1))
    try:
        process = make(quantizer, job, path, python)
        judgement = judge(path)
    except NoFile as missing:
        return Missing(**about, status=missing.status, reason=missing.reason)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises anything at other people's files
        return Missing(**about, status="failed", reason=said(error))
    judge.progress(Step(f"making {quantizer.name}", 1, 1))
    return Candidate(**about, path=path, judgement=judgement, process=process)


def _run_once(path: Path, feeds: Feeds, threads: int) -> None:
    from edgekit.device.session import open_session, runtime

    options = runtime().RunOptions()
    options.log_severity_level = 4  # What fails is raised; it need not be printed, too.
    open_session(path, threads=threads).run(None, dict(feeds), options)


def _steps(path: Path, feeds: Feeds, threads: int) -> int | None:
    from edgekit.quantize.simulation import steps_apart

    return max(steps_apart(path, feeds, threads=threads).values(), default=None)
