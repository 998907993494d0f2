"""Candidates in processes of their own: what they tell, and what becomes of those that die."""

from __future__ import annotations

import json
import os
import textwrap

import numpy as np
import pytest

from edgekit.device.benchmark import benchmark, profile_kernels
from edgekit.device.candidates import Candidate, Row, compared, machine_remarks
from edgekit.device.kernels import Kernels, read_kernels
from edgekit.device.latency import Latency
from edgekit.device.process import Process
from edgekit.device.rounds import LostError
from edgekit.device.scenarios import Scenario
from edgekit.errors import EdgekitError
from tests.marks import seldom

ODD_WORKER = """
    import os, signal, sys, time

    import numpy as np

    from edgekit.device.worker import Opened, main


    def odd(request):
        calls, kind = [], request["path"]

        def run():
            calls.append(kind)
            print("a library that prints on stdout")
            if kind == "segfault" and len(calls) > 40:
                print("about to fall", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            if kind == "hang":
                time.sleep(60)
            if kind == "exit":
                os._exit(3)
            if kind.endswith(".core"):
                with open(kind, "w") as file:
                    file.write(" ".join(map(str, os.sched_getaffinity(0))))
            time.sleep(0.001)

        return Opened(run, {"x": np.zeros((request["batch"] or 1, 2))}, note=f"process {kind}")


    main(odd)
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A candidate whose process does as its path says."""
    (tmp_path / "odd_worker.py").write_text(textwrap.dedent(ODD_WORKER))
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def make(what, **more):
        return Candidate(name=what, path=what, source="eager", worker="odd_worker", **more)

    return make


def quick(candidates, **more):
    return benchmark(candidates, **{"time_s": 0.05, "warmup_s": 0.01, "starts": 1, **more})


def test_a_process_that_is_killed_is_a_row_and_the_others_go_on(odd):
    found = quick([odd("well"), odd("segfault"), odd("exit")])
    assert [row.candidate.name for row in found.rows] == ["well"]
    reasons = {failed.candidate.name: str(failed.reason) for failed in found.failed}
    assert "was killed by SIGSEGV" in reasons["segfault"]
    assert "about to fall" in reasons["segfault"]
    assert "ended with exit code 3" in reasons["exit"]
    (row, *failed) = found.to_dict()["candidates"]
    assert (row["status"], row["note"]) == ("measured", "process well")
    assert [each["status"] for each in failed] == ["failed", "failed"]


def test_without_its_baseline_a_candidate_has_figures_and_no_verdict(odd):
    (row,) = quick([odd("exit"), odd("well")]).rows
    assert (row.ratio, row.verdict) == (None, None)
    assert row.latency.p50.value > 0


def test_a_process_that_does_not_answer_is_given_up(odd):
    with Process("stuck", module="odd_worker", timeout_s=6) as process, pytest.raises(LostError) as caught:
        process.ask(odd("hang").request("open", scenario=Scenario().to_dict()))
    assert str(caught.value).startswith("no answer within 6 s")


def test_each_start_is_a_process_and_ratios_are_per_sample(odd):
    found = quick([odd("well"), odd("twin", batch=2)], starts=2)
    one, two = found.rows
    assert (len(one.load_ms), len(two.first_ms), one.latency.runs) == (2, 2, two.latency.runs)
    assert len(one.latency.runs) == 2
    assert sum(one.latency.runs) == len(one.latency.rounds_ms) >= 30
    paired = np.mean([np.median(part) for part in np.split(one.latency.rounds_ms / two.latency.rounds_ms, 2)])
    if one.latency.runs[0] == one.latency.runs[1]:
        assert two.ratio.value == pytest.approx(2 * paired)
    assert (one.ratio.value, one.verdict) == (1.0, "no measurable difference")
    mean_ms = np.mean([np.mean(part) for part in np.split(two.latency.samples_ms, np.cumsum(_calls(two))[:-1])])
    assert two.throughput.value == pytest.approx(2e3 / mean_ms)


@pytest.mark.parametrize(("width", "starts"), [(1e9, 2), seldom(0, 4)])
def test_more_processes_are_started_while_it_is_not_known_how_candidates_compare(odd, width, starts):
    # Long enough for the 299 calls that p99 needs, in two starts of four, on a busy machine, too.
    found = quick([odd("well"), odd("twin")], starts=2, width=width, time_s=8.0)
    one, two = found.rows
    assert (found.starts, len(one.load_ms), len(two.latency.runs)) == (starts, starts, starts)


def test_time_ends_what_a_width_does_not(odd):
    found = quick([odd("well"), odd("twin")], starts=2, width=0, time_s=0.02)
    assert found.starts == 2
    assert len(found.rows[0].latency.rounds_ms) == 30


def test_a_wide_interval_says_that_it_is_wide():
    def row(*times_ms):
        latency = Latency(samples_ms=np.array(times_ms), rounds_ms=np.array(times_ms))
        return Row(
            candidate=Candidate(name="x", path="x"),
            batch=1,
            samples=1,
            latency=latency,
            throughput=latency.mean,
            ratio=None,
            verdict=None,
            load_ms=(1.0,),
            first_ms=(1.0,),
            peak_bytes=1,
            base_bytes=1,
            size_bytes=1,
            energy_j=None,
            kernels=None,
        )

    even = row(*[1.0] * 40)
    assert compared(even, even).remarks == ()
    unsure = compared(row(*[0.9, 1.1] * 20), even)
    assert unsure.verdict == "no measurable difference"
    said = f"all that is known is {unsure.ratio.low:.3f}x to {unsure.ratio.high:.3f}x"
    assert unsure.remarks == (f"{said}: a quiet machine or a longer time says more",)
    assert compared(row(*[0.5, 0.6] * 20), even).remarks == ()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not place threads")
@pytest.mark.parametrize("threads", [1, 2])
def test_candidates_of_one_thread_share_the_core_that_the_system_chose(odd, tmp_path, threads):
    files = [tmp_path / name for name in ("one.core", "two.core")]
    quick([odd(str(files[0])), odd(str(files[1]), threads=threads)])
    one, two = ({int(core) for core in file.read_text().split()} for file in files)
    if threads == 1:
        assert one == two
        assert len(one) == 1
        assert one <= os.sched_getaffinity(0)
    else:
        assert one == two == os.sched_getaffinity(0)


def _calls(row):
    per_round = len(row.latency.samples_ms) // len(row.latency.rounds_ms)
    return [per_round * rounds for rounds in row.latency.runs]


def test_a_query_of_several_runs_and_a_server(odd):
    (row,) = quick([odd("well")], scenario=Scenario(kind="multi-stream", samples=4)).rows
    assert (row.batch, row.samples) == (1, 4)
    assert row.latency.p50.value >= 4.0  # Four sleeps of a millisecond.
    (row,) = quick([odd("well")], scenario=Scenario(kind="server", rate=100), time_s=0.5).rows
    assert len(row.latency.samples_ms) % 10 == 0
    assert row.latency.samples_ms.min() >= 1.0


def test_an_onnx_file_is_placed_and_weighed(model_file):
    found = benchmark([Candidate(name="net", path=str(model_file))], time_s=0.02, warmup_s=0.01, starts=1)
    (row,) = found.to_dict()["candidates"]
    assert row["size_bytes"] == model_file.stat().st_size
    # Flatten is a Reshape that costs nothing or stays a node of its own; MatMul is there in any case.
    assert row["nodes_by_provider"]["CPUExecutionProvider"] in (1, 2)
    assert row["peak_bytes"] > row["base_bytes"] > 10**6
    kernels = profile_kernels(Candidate(name="net", path=str(model_file)), runs=4)
    assert any("MatMul" in kernel.operator for kernel in kernels.rows)
    assert Kernels.from_dict(json.loads(json.dumps(kernels.to_dict()))) == kernels


def test_what_the_profiler_wrote_is_read(tmp_path):
    def node(name, index, duration, **more):
        about = {"op_name": "Conv", "provider": "CPUExecutionProvider", "node_index": str(index), **more}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": about}

    times = [900, 10, 11, 12, 13, 100, 9, 10, 11]
    events = [node("a", 0, time) for time in times]
    events += [node("a", 1, 5, mem_arena_held="4096"), node("b", 2, 7, mem_arena_held="1024")]
    events += [{"cat": "Node", "name": "a_fence_before", "dur": 99, "args": {}}]
    events += [{"cat": "Session", "name": "model_run", "dur": duration} for duration in (1000, 30, 40)]
    (tmp_path / "profile.json").write_text(json.dumps(events))
    found = read_kernels(tmp_path / "profile.json")
    middle = sorted(times[1:])[2:6]  # Two namesakes are two nodes; the first run and the outer halves do not count.
    assert [(row.name, row.us) for row in found.rows] == [("a", sum(middle) / 4), ("a", 5), ("b", 7)]
    assert (found.run_us, found.arena_bytes) == (35, 4096)
    assert found.by_provider() == {"CPUExecutionProvider": 3}


def test_what_should_be_known_of_the_machine_is_said():
    quiet = {"cores": 4, "load_average": [0.1, 0, 0], "governor": "performance", "frequency_mhz": 3000.0}
    before = {"cpu": {**quiet, "temperature_c": 40.0}}
    assert list(machine_remarks(before, before)) == []
    busy = {"cpu": {**before["cpu"], "load_average": [3.0, 0, 0]}}
    after = {"cpu": {**before["cpu"], "governor": "powersave", "frequency_mhz": 2000.0, "temperature_c": 91.0}}
    load, governor, clock, heat = machine_remarks(busy, after)
    assert "load 3 on 4 cores" in load
    assert "powersave" in governor
    assert "from 3000 to 2000 MHz" in clock
    assert "91 °C" in heat
    unknown = {"cpu": {**dict.fromkeys(quiet), "cores": 1, "temperature_c": None}}
    assert list(machine_remarks(unknown, unknown)) == []


@pytest.mark.parametrize(
    ("candidates", "options", "text"),
    [
        ([], {}, "no candidates"),
        ([Candidate(name="a", path="x"), Candidate(name="a", path="y")], {}, "two candidates are called a"),
        ([Candidate(name="a", path="x")], {"starts": 0}, "got 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(candidates, options, text):
    with pytest.raises(EdgekitError, match=text):
        benchmark(candidates, **options)
