"""The costs of one device in a file that grows: pieces of networks that have none are timed there, or asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from edgekit.device.costs import MeasuredCosts, load_costs
from edgekit.device.request import Timed, read_request, write_request
from edgekit.errors import EdgekitError
from edgekit.profiling.piece import Piece, graphs, pieces
from edgekit.profiling.prediction import Prediction, predict
from edgekit.profiling.remote import describe_on, time_graphs_on
from edgekit.progress import Progress, silent
from edgekit.store import locking

S_PER_GRAPH, LEAST_S = 0.4, 10.0
"""Seconds of timing on a host."""


def check_host(host: str | None, costs: str | None) -> None:
    """Refuse a host without a file that keeps what it has timed.

    Raises:
        EdgekitError: so it is.
    """
    if host is not None and costs is None:
        raise EdgekitError(f"got {host} without --costs", where="--on", rule="a file that keeps what was timed there")


def target_of(costs: Path | None, host: str | None, *, python: str = "python3", threads: int = 1) -> str | None:
    """The kind of CPU that a device has, as `edgekit.device.isa_target` names it; None where no device is spoken of.

    A host whose costs are not kept yet is asked, and its answer is what the file of costs begins with.

    Args:
        costs: the file of costs.
        host: `user@host`.
        python: its interpreter.
        threads: that the costs are for.

    Raises:
        UnreachableError: the host does not answer.
        EdgekitError: the file is none of costs.
    """
    if costs is None:
        return None
    known = load_costs(costs) if costs.exists() else None
    if known is None and host is not None:
        known = describe_on(host, python=python, threads=threads)
        known.save(costs)
    return None if known is None else known.isa_target


class CostBook:
    """What networks take on a device that is elsewhere, by what their pieces cost there.

    Pieces without costs are timed on `host` over ssh and added to the file; without a host they go into a request.
    Processes that share the file time one after the other, and each sees what the others have added.

    Args:
        path: the file of costs (`edgekit profile`); where it is not there yet, nothing has a cost.
        threads: of ONNX Runtime on the device.
        request: the file for a request.
        host: `user@host`, for pieces that have no costs.
        python: its interpreter, with numpy and onnxruntime.
        progress: told while the host times pieces.

    Raises:
        EdgekitError: the file is none of costs, or they were measured with another number of threads.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        request: Path,
        host: str | None = None,
        python: str = "python3",
        progress: Progress = silent,
    ) -> None:
        self.path, self.threads, self.request = path, threads, request
        self.host, self.python, self.progress = host, python, progress
        self.costs = self._read()

    @property
    def key(self) -> Mapping[str, Any]:
        """What tells one device's file from another's; costs that are added later do not change it."""
        return {"costs": str(self.path.resolve()), "device": list(self.costs.device) if self.costs.conditions else []}

    def predicted(
        self, files: Mapping[str, bytes], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, tuple[tuple[Piece, ...], Prediction]]:
        """The pieces of each ONNX file, for these sizes of its inputs, and what it takes on the device.

        Raises:
            EdgekitError: pieces have no costs and there is no host to time them on, or the device could not run one.
        """
        parts = {name: pieces(onnx.load_from_string(data), shapes) for name, data in files.items()}
        wanted = graphs([piece for found in parts.values() for piece in found])
        if self._missing(wanted):
            # Two that time on one device at once would slow each other down.
            with locking(self.path.with_name(f".{self.path.name}.lock"), wait=True):
                self.costs = self._read()
                self._time(self._missing(wanted))
        return {name: (found, predict(found, self.costs)) for name, found in parts.items()}

    def _read(self) -> MeasuredCosts:
        if not self.path.exists():
            return MeasuredCosts(threads=self.threads, provider="cpu", measured={})
        costs = load_costs(self.path)
        if costs.threads != self.threads:
            raise EdgekitError(
                f"measured with {costs.threads} thread(s)",
                where=str(self.path),
                rule=f"--threads {self.threads}",
                way_out="measure them again with as many threads, or start this for as many",
            )
        return costs

    def _missing(self, wanted: Sequence[Timed]) -> list[Timed]:
        return [each for each in wanted if each.key not in self.costs.measured]

    def _time(self, missing: Sequence[Timed]) -> None:
        refused = [each for each in missing if each.key in self.costs.failed]
        if refused:
            raise EdgekitError(
                f"the device could not run {len(refused)} graph(s): {self.costs.failed[refused[0].key]}",
                where=str(self.path),
                rule="every operator of the network runs on the device",
                way_out="a newer onnxruntime there, or another network",
            )
        if not missing:
            return
        if self.host is None:
            # What was asked for before stays asked for, until it has a cost.
            asked = read_request(self.request) if self.request.exists() else ()
            every = {each.key: each for each in (*self._missing(asked), *missing)}
            write_request(self.request, list(every.values()))
            raise EdgekitError(
                f"{len(missing)} pieces of the networks have no costs",
                where=str(self.path) if self.path.exists() else f"{self.path}, which is not there yet",
                rule="costs of every piece that is compared",
                way_out=f"on the device: python -m edgekit.device profile {self.request.name} --out {self.path.name}; "
                f"bring that file back and start the same command again (the request is {self.request})",
            )
        self.costs = time_graphs_on(
            self.host,
            missing,
            keep=lambda costs: costs.save(self.path),
            known=self.costs if self.costs.measured else None,
            python=self.python,
            threads=self.threads,
            time_s=max(LEAST_S, S_PER_GRAPH * len(missing)),
            progress=self.progress,
        )
