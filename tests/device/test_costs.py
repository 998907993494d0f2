"""Costs come back as they were saved, and those of two devices do not mix."""

from __future__ import annotations

import json

import pytest

from edgekit.device.costs import Measured, MeasuredCosts, load_costs
from edgekit.errors import EdgekitError

ROW = Measured(us=2.0, low=1.5, high=2.5, n=9)


def costs(measured, *, cpu="a CPU", isa="x86-vnni", threads=1, failed=None):
    cpu = {"model": cpu, "governor": "performance"}
    about = {"cpu": cpu, "isa_target": isa, "versions": {"onnxruntime": "1.30"}}
    return MeasuredCosts(
        threads=threads,
        provider="cpu",
        measured=measured,
        failed=failed or {},
        conditions=({"before": about, "after": about, "graphs": len(measured)},),
    )


def test_they_come_back_as_they_were_saved(tmp_path):
    made = costs({"a": ROW}, failed={"b": "no kernel"})
    made.save(tmp_path / "costs.json")
    assert load_costs(tmp_path / "costs.json") == made


def test_merging_keeps_all_and_the_later_wins():
    later = Measured(us=3.0, low=3.0, high=3.0, n=1)
    merged = costs({"a": ROW, "b": ROW}, failed={"c": "no"}).merge(costs({"b": later, "c": later}))
    assert merged.measured == {"a": ROW, "b": later, "c": later}
    assert merged.failed == {}
    assert len(merged.conditions) == 2


@pytest.mark.parametrize("other", [{"cpu": "another"}, {"isa": "x86-avx2"}, {"threads": 2}])
def test_those_of_another_device_are_refused(other):
    with pytest.raises(EdgekitError, match="measured on"):
        costs({"a": ROW}).merge(costs({"b": ROW}, **other))


def test_they_say_which_files_the_device_runs():
    assert costs({}, isa="arm64").isa_target == "arm64"
    assert MeasuredCosts(threads=1, provider="cpu", measured={}).isa_target is None


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda data: data.update(version=9), "no costs of this version"),
        (lambda data: data.pop("threads"), "KeyError"),
        (lambda data: data.update(measured=[]), "AttributeError"),
        (lambda data: data["measured"]["a"].update(us=-1), "low <= us"),
        (lambda data: data["measured"]["a"].update(low=9), "low <= us"),
        (lambda data: data["measured"]["a"].update(n=0), "low <= us"),
        (lambda data: data["measured"]["a"].update(sweeps=0), "low <= us"),
        (lambda data: data["measured"]["a"].pop("high"), "KeyError"),
        (lambda data: data.update(conditions=[{}]), "KeyError"),
    ],
)
def test_other_files_are_refused(tmp_path, edit, match):
    data = costs({"a": ROW}).to_dict()
    edit(data)
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(data))
    with pytest.raises(EdgekitError, match=match):
        load_costs(path)


def test_a_missing_file_and_one_that_is_no_json_are_told(tmp_path):
    with pytest.raises(EdgekitError, match="cannot read"):
        load_costs(tmp_path / "absent")
    (tmp_path / "no").write_text("{]")
    with pytest.raises(EdgekitError, match="not JSON") as caught:
        load_costs(tmp_path / "no")
    assert "edgekit profile" in caught.value.way_out
