"""A search from the builder to the front: what is trained, what is not, and what it leaves."""

from __future__ import annotations

import json
import sys
from collections import Counter

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from edgekit.errors import EdgekitError
from edgekit.search import Front, SearchSettings, explore, search
from edgekit.search.record import FRONT, PICTURE
from edgekit.validate.behaviour import Gates


@pytest.fixture(scope="module")
def quick(project):
    """Settings under which a search takes seconds; latencies are predicted, so that every run is the same."""

    def make(**changes):
        chosen = {"trials": 6, "latency": f"{project}:microseconds", "epochs": 1, "finalists": 2, "batch_size": 32}
        return SearchSettings(**{**chosen, "time_s": 600, "latency_time_s": 0.3, "placement": "rules", **changes})

    return make


@pytest.fixture(scope="module")
def done(quick, config_for, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, search(config_for(), quick(), out=out)


def trainings(out):
    """How many networks were trained at each rung."""
    return Counter(path.name.rpartition("-")[0] for path in (out / "stages").glob("train-*"))


def trial_choices(front):
    return [trial["choices"] for trial in front.details["trials"]]


def test_the_front_is_what_no_other_measured_file_beats(done):
    out, front = done
    points = [member.point for member in front.members]
    everything = np.array([[p.latency_ms, p.drop.value, p.size_bytes] for p in (*points, *front.others)])
    beaten = [any((other <= mine).all() and (other < mine).any() for other in everything) for mine in everything]
    assert beaten == [False] * len(points) + [True] * len(front.others)
    assert [p.latency_ms for p in points] == sorted(p.latency_ms for p in points)
    assert (out / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_files_of_the_front_are_what_they_are_said_to_be(done, config_for):
    out, front = done
    x, y = zip(*_data(config_for()), strict=True)
    selection = np.array(_selection(config_for()))
    x, y = np.stack(x)[selection], np.array(y)[selection]
    by_precision = Counter(member.precision for member in front.members)
    assert set(by_precision) <= {"fp32", "int8"}
    reference, _ = _right(out / front.reference["file"], x, y)
    for member in front.members:
        path = front.file(out, member)
        right, tied = _right(path, x, y)
        drop = 100 * (reference.mean() - right.mean())
        # Logits of int8 networks may be equal, and which of them is the answer is the metric's affair.
        assert abs(member.point.drop.value - drop) <= 100 * tied.mean() + 1e-9
        assert member.point.size_bytes == path.stat().st_size
        assert (out / member.source).is_file()


def test_the_default_network_is_tried_first_and_the_trials_are_told(done):
    _, front = done
    assert trial_choices(front)[0] == {"width": 8, "depth": 1}
    assert {each["name"] for each in front.details["space"]} >= {"width", "depth"}
    assert len(front.details["trials"]) == 6
    assert all(trial["state"] in ("complete", "pruned") for trial in front.details["trials"])
    assert all(trial["reason"] for trial in front.details["trials"] if trial["state"] == "pruned")


def test_no_network_is_trained_twice(done):
    out, front = done
    distinct = {json.dumps(choices) for choices in trial_choices(front)}
    # Those that reached the first rung; the default network is the reference, too.
    assert trainings(out)["train-0"] == len(distinct)
    assert trainings(out)["train-full"] <= 3


def test_the_same_call_again_trains_nothing_and_gives_the_same_front(done, quick, config_for):
    out, front = done
    before = {path: path.stat().st_mtime_ns for path in (out / "stages").glob("*/*")}
    again = search(config_for(), quick(), out=out)
    assert {path: path.stat().st_mtime_ns for path in (out / "stages").glob("*/*")} == before
    assert [member.to_dict() for member in again.members] == [member.to_dict() for member in front.members]


def test_files_that_break_a_gate_are_left_off_the_front_where_others_hold_it(done, quick, config_for):
    out, front = done
    x = np.stack([x for x, _ in _data(config_for())])[np.array(_selection(config_for()))]
    before = _answers(out / front.reference["file"], x)

    def churn(member):
        return 100 * (_answers(out / member.file, x) != before).mean()

    def again(limit):
        return search(config_for(), quick(gates=Gates(max_churn=limit)), out=out)

    every = again(100.0)
    assert [each.point for each in every.members] == [each.point for each in front.members]
    fewest = min(churn(each) for each in every.members)
    some = again(float(fewest))
    assert some.members
    assert all(churn(each) <= fewest + 1e-9 and not each.broken for each in some.members)
    if fewest > 0:
        none = again(float(fewest) / 2)
        assert all(each.broken[0].startswith("churn") for each in none.members)
        assert none.chosen(max_latency_ms=None, max_drop=None) is None
    search(config_for(), quick(), out=out)  # as the other tests expect it


def test_front_json_is_read_back(done):
    out, front = done
    loaded = Front.load(out)
    assert json.loads(json.dumps(loaded.to_dict())) == json.loads((out / FRONT).read_text())
    assert loaded.members == front.members
    with pytest.raises(EdgekitError, match="got 99"):
        loaded.member(99)


def test_a_search_that_is_interrupted_goes_on_and_proposes_the_same(done, quick, config_for, tmp_path):
    _, whole = done
    stops = [1, 3, 4]

    def interrupting(step):
        if step.work == "networks" and stops and step.done >= stops[0]:
            del stops[0]
            raise KeyboardInterrupt

    front = None
    for _ in range(4):
        try:
            front = explore(config_for(), quick(), out=tmp_path, progress=interrupting)
        except KeyboardInterrupt:
            continue
    assert stops == []
    assert trial_choices(front) == trial_choices(whole)
    for rung in ("train-0", "train-1"):
        assert trainings(tmp_path)[rung] == trainings(done[0])[rung]


def test_interrupted_in_the_middle_of_a_training_the_same_trial_is_begun_again(quick, config_for, tmp_path):
    seen = []

    def interrupting(step):
        seen.append(step.work)
        # The third network's first training: after the default's, which is the reference, and the first trial's.
        if step.work.startswith("short training") and seen.count("networks") == 3 and "x" not in seen:
            seen.append("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(config_for(), quick(), out=tmp_path, progress=interrupting)
    front = explore(config_for(), quick(), out=tmp_path)
    ends = [trial for trial in front.details["trials"] if trial["state"] != "fail"]
    (begun_again,) = [trial for trial in ends if trial["begun_again_for"]]
    (failed,) = [trial for trial in front.details["trials"] if trial["state"] == "fail"]
    assert begun_again["begun_again_for"] == [failed["number"]]
    assert begun_again["choices"] == failed["choices"]
    assert len(ends) == 6
    assert trainings(tmp_path)["train-0"] == len({json.dumps(trial["choices"]) for trial in ends})


def test_more_trials_later_go_on_with_the_same_study(quick, config_for, tmp_path):
    first = explore(config_for(), quick(trials=2), out=tmp_path)
    second = explore(config_for(), quick(trials=4), out=tmp_path)
    assert second.details["study"] == first.details["study"]
    assert trial_choices(second)[:2] == trial_choices(first)
    assert len(second.details["trials"]) == 4


def test_networks_proposed_twice_are_trained_once(quick, config_for, tmp_path):
    front = explore(config_for("two"), quick(trials=7, rungs=1), out=tmp_path)
    assert trainings(tmp_path)["train-0"] == 2
    twins = [trial for trial in front.details["trials"] if trial["same_as"] is not None]
    assert len(twins) == 5
    assert {trial["state"] for trial in twins} == {"complete"}


def test_how_to_compute_is_measured_once_for_each_kind_of_network(quick, config_for, tmp_path, monkeypatch):
    fit, measured = sys.modules["edgekit.training.fit"], []  # The package has a function of that name.
    choose = fit.choose

    def counted(model, *rest, **options):
        measured.append(sorted({type(module).__name__ for module in model.modules()}))
        return choose(model, *rest, **options)

    monkeypatch.setattr(fit, "choose", counted)
    explore(config_for("network"), quick(trials=8, rungs=2), out=tmp_path)
    assert sum(trainings(tmp_path).values()) > 4
    kinds = [["Linear", "ReLU", "Sequential"], ["Linear", "ReLU", "Sequential", "Tanh"]]
    assert sorted(measured) == kinds


def test_too_slow_a_network_is_given_up_before_any_training(quick, config_for, tmp_path):
    limit = (8 * 6 + 8 + 3 * 8 + 3) / 1000  # the default network's parameters, by hand: width 8, depth 1
    settings = quick(aims=("drop",), max_latency_ms=limit, trials=8, sampler="random")
    front = explore(config_for(), settings, out=tmp_path)
    slow = [trial for trial in front.details["trials"] if (trial["reason"] or "").startswith("latency")]
    assert slow
    assert all(trial["speed"]["latency_ms"] > limit for trial in slow)
    assert all(trial["drop_after_short_training"] is None for trial in slow)
    timed = [trial for trial in front.details["trials"] if trial["speed"]]
    quick_ones = {json.dumps(trial["choices"]) for trial in timed if trial["speed"]["latency_ms"] <= limit}
    assert trainings(tmp_path)["train-0"] == len(quick_ones)


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_one_aim_is_searched_with_a_model_and_pruned_by_optuna(sampler, quick, config_for, tmp_path):
    settings = quick(aims=("drop",), max_latency_ms=1.0, sampler=sampler, trials=8)
    front = explore(config_for(), settings, out=tmp_path)
    assert len(front.details["trials"]) == 8
    assert trainings(tmp_path)["train-1"] < trainings(tmp_path)["train-0"]


def test_a_network_that_cannot_be_built_is_an_answer_too(quick, config_for, tmp_path):
    front = explore(config_for("broken"), quick(trials=8, rungs=1, sampler="random"), out=tmp_path)
    reasons = {trial["reason"] for trial in front.details["trials"] if trial["state"] == "pruned"}
    assert any("no such network" in (reason or "") for reason in reasons)
    assert len(front.details["trials"]) == 8


@pytest.mark.slow
def test_a_teacher_is_the_reference_and_weights_are_a_start(project, quick, config_for, tmp_path):
    given = f"{project}:teacher"
    front = search(config_for(), quick(teacher=given, weights=given, trials=2, rungs=1, finalists=1), out=tmp_path)
    assert front.reference["what"] == "the teacher, fp32"
    # The rung before any training: BatchNorm re-estimation of what the weights give.
    assert sorted(trainings(tmp_path)) == ["train-0", "train-1", "train-full"]
    records = [json.loads(p.read_text()) for p in (tmp_path / "stages").glob("train-0-*/trained.json")]
    assert all(record["epochs"] == 0 for record in records)
    (default,) = [
        path.parent
        for path in (tmp_path / "stages").glob("train-0-*/trained.json")
        if json.loads(path.read_text())["choices"] == {"width": 8, "depth": 1}
    ]
    expected = _state(project)
    taken = load_file(default / "weights.safetensors")
    np.testing.assert_array_equal(taken["0.weight"], expected["0.weight"][:8])
    np.testing.assert_array_equal(taken["2.weight"], expected["2.weight"][:, :8])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"aims": ("drop",)}, "the only aim is the drop"),
        ({"aims": ("latency",)}, "got latency"),
        ({"aims": ("drop", "energy")}, "got drop, energy"),
        ({"trials": 0}, "got 0"),
        ({"factor": 1}, "got 1"),
        ({"max_latency_ms": -1.0}, "got -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, problem):
    with pytest.raises(EdgekitError, match=problem):
        SearchSettings(**changes)


def test_a_builder_without_choices_is_refused(quick, config_for, tmp_path):
    with pytest.raises(EdgekitError, match="the builder asks for no choice"):
        explore(config_for("teacher"), quick(), out=tmp_path)


def test_a_limit_that_nothing_holds_says_so(quick, config_for, tmp_path):
    with pytest.raises(EdgekitError, match=r"none of 2 networks came through: latency .* > 0.001 ms"):
        explore(config_for(), quick(trials=2, max_latency_ms=0.001), out=tmp_path)


def _right(path, x, y):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x})
    best = np.sort(logits, axis=1)
    return logits.argmax(1) == y, best[:, -1] == best[:, -2]


def _answers(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0].argmax(1)


def _data(config):
    from edgekit.workload import load_callable

    return [(x.numpy(), int(y)) for x, y in load_callable(config.test)()]


def _selection(config):
    from edgekit.workload import load_workload

    return load_workload(config).splits.selection.indices


def _state(project):
    from edgekit.workload import load_callable

    return {name: tensor.numpy() for name, tensor in load_callable(f"{project}:teacher")().state_dict().items()}
