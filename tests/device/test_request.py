"""A request comes back as it was written, and nothing else is taken for one."""

from __future__ import annotations

import json
import zipfile

import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.device.request import Timed, pack, read_request, write_request
from edgekit.errors import EdgekitError


def graph(op="Relu", **attributes):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    made = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "piece", values[:1], values[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def timed(key="a1", model=None, inputs=(("float32", (2, 4)),)):
    return Timed(key=key, graph=(model or graph()).SerializeToString(), inputs=inputs)


@pytest.fixture
def request_file(tmp_path):
    path = tmp_path / "ops.request"
    write_request(path, [timed("a1"), timed("b2", graph("Abs"))])
    return path


def changed(path, change):
    """The same zip with other contents: `change` takes and gives a list of (name, bytes)."""
    with zipfile.ZipFile(path) as archive:
        files = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in change(files):
            archive.writestr(name, data)
    return path


def with_index(edit):
    def change(files):
        index = json.loads(dict(files)["index.json"])
        edit(index)
        return [(name, json.dumps(index).encode() if name == "index.json" else data) for name, data in files]

    return change


def test_it_comes_back_as_it_was_written(request_file):
    assert read_request(request_file) == (timed("a1"), timed("b2", graph("Abs")))


def test_the_same_graphs_give_the_same_bytes():
    assert pack([timed()]) == pack([timed()])


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda index: index.update(version=2), "no request of this version"),
        (lambda index: index.update(format="x"), "no request of this version"),
        (lambda index: index.update(graphs={}), "got dict"),
        (lambda index: index["graphs"].pop(), "not those of the index"),
        (lambda index: index["graphs"].append({"key": "c3", "inputs": []}), "not those of the index"),
        (lambda index: index["graphs"].append(index["graphs"][0]), "not those of the index"),
        (lambda index: index["graphs"][0].update(key="../a1"), "small letters"),
        (lambda index: index["graphs"][0].update(key=7), "small letters"),
        (lambda index: index["graphs"][0].pop("inputs"), "a list of"),
        (lambda index: index["graphs"][0].update(inputs=[["float32", [10**5, 10**5]]]), "numbers"),
        (lambda index: index["graphs"][0].update(inputs=[["float32", [-1]]]), "numbers"),
        (lambda index: index["graphs"][0].update(inputs=[["float32", [True]]]), "numbers"),
        (lambda index: index["graphs"][0].update(inputs=[["object", [1]]]), "numbers"),
        (lambda index: index["graphs"][0].update(inputs=["float32"]), "numbers"),
    ],
)
def test_a_wrong_index_is_refused(request_file, edit, match):
    with pytest.raises(EdgekitError, match=match):
        read_request(changed(request_file, with_index(edit)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda files: [*files, ("extra", b"")], "not those of the index"),
        (lambda files: files[:-1], "not those of the index"),
        (lambda files: files[1:], "no index"),
        (lambda files: [files[0], files[1], (files[2][0], b"no graph")], "wire type"),
        (lambda files: [("index.json", b"{]"), *files[1:]], "not JSON"),
        (lambda files: [("index.json", b" " * 9_000_000), *files[1:]], "too large"),
    ],
    ids=["extra", "missing", "no index", "no graph", "no JSON", "large index"],
)
def test_other_files_are_refused(request_file, change, match):
    with pytest.raises(EdgekitError, match=match):
        read_request(changed(request_file, change))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_stands_there_twice_is_refused(request_file):
    with pytest.raises(EdgekitError, match="twice"):
        read_request(changed(request_file, lambda files: [*files, files[-1]]))


def test_every_damage_is_told_as_one(request_file):
    """Whichever byte is changed or lost, the file is refused or reads as it was: no other exception, no other graph."""
    whole, expected = request_file.read_bytes(), read_request(request_file)
    for place in range(0, len(whole), 7):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]):
            request_file.write_bytes(damaged)
            try:
                found = read_request(request_file)
            except EdgekitError:
                continue
            assert found == expected


def test_a_graph_that_reaches_beyond_itself_is_refused(tmp_path):
    model = graph()
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1], raw_data=bytes(4))
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    write_request(tmp_path / "r", [timed(model=model)])
    with pytest.raises(EdgekitError, match=r"another file|external"):
        read_request(tmp_path / "r")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(EdgekitError, match="cannot read"):
        read_request(tmp_path / "absent")
