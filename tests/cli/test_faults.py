"""Faults of the user's: each ends with exit code 4 and says what, where and the way out; nothing is left behind."""

import json
import shutil
import zipfile

import numpy as np
import onnxruntime
import pytest

SICK = """

class Undecided(Net):
    def forward(self, x):
        y = super().forward(x)
        return y if x[0, 0, 0, 0] > x[0, 0, 0, 1] else 2 * y


class Torn(TensorDataset):
    def __getitem__(self, index):
        if index > 50:
            raise ValueError(f"sample {index} is torn")
        return super().__getitem__(index)


def undecided():
    net = Undecided()
    net.load_state_dict(model().state_dict())
    return net


@torch.no_grad()
def nan_weights():
    net = model()
    net.head.weight[1, 2] = float("nan")
    return net


@torch.no_grad()
def overflowing():
    net = model()
    net.head.weight.fill_(3e38)
    return net


def raising():
    return 1 / 0


def leaving():
    raise SystemExit("bye")


def state():
    return model().state_dict()


def nothing():
    return None


def empty():
    return TensorDataset(torch.zeros(0, 3, 16, 16), torch.zeros(0, dtype=torch.int64))


def few():
    return data(3, 1)


def five_channels():
    return TensorDataset(torch.zeros(96, 5, 16, 16), torch.zeros(96, dtype=torch.int64))


def strange_labels():
    return TensorDataset(images(96, 1), torch.full((96,), 9))


def late_strange_labels():
    x, labels = train_data().tensors
    labels[100:] = 9
    return TensorDataset(x, labels)


def unlabelled():
    return train_data().tensors[0]


def torn():
    return Torn(*train_data().tensors)
"""

REFERENCE = "path/to/file.py:function or package.module:function"
RUNS = "the function runs without arguments and returns the model or the data"
MEND = "run it by itself in Python and mend what it reports"
ORDER = "check the data's class order and the model's number of classes"
STACKED = "check shapes and dtypes; edgekit stacks the items of the dataset to a batch and passes it on"
EMPTY = "check the path; an empty folder or filter gives no samples"
WIDE = (
    "RuntimeError: Given groups=1, weight of size [32, 3, 3, 3], expected input[8, 5, 16, 16] to have 3 channels, "
    "but got 5 channels instead"
)


@pytest.fixture
def here(project, tmp_path, monkeypatch):
    """The current folder: the project with all that may be wrong about one."""
    (tmp_path / "net.py").write_text(project.path.read_text() + SICK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fails(edgekit, here):
    """Run a command that has to fail by the user's fault, and to leave all files as they were."""

    def tree():
        paths = (path for path in here.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path: path.read_bytes() for path in paths}

    def run(*words):
        before = tree()
        answer = edgekit(*words)
        assert (answer.code, answer.out) == (4, ""), answer.err
        assert tree() == before
        return answer.err

    return run


def words(model="net.py:model", train="net.py:train_data", test="net.py:test_data"):
    return [model, "--train", train, "--test", test]


def line(here, text):
    """Where the project says `text`, as a traceback names it."""
    return f"{here}/net.py:{(here / 'net.py').read_text().splitlines().index(text) + 1}"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param(
            {"model": "absent.py:model"},
            (
                "no file {here}/absent.py",
                "{here}/absent.py:model",
                REFERENCE,
                "paths start from the folder you are in, or absolute",
            ),
            id="a model file that is not there",
        ),
        pytest.param(
            {"model": "net.py:state"},
            (
                "the factory returned a OrderedDict",
                "net.py:state",
                "a torch.nn.Module with its trained weights",
                "return the module itself, not its state dict or class",
            ),
            id="a model that is none",
        ),
        pytest.param(
            {"model": "net.py:nan_weights"},
            (
                "1 of 128 values of head.weight are NaN or infinite",
                "net.py:nan_weights",
                "trained weights are finite",
                "load a checkpoint from before the training diverged",
            ),
            id="NaN in the weights",
        ),
        pytest.param(
            {"model": "net.py:overflowing"},
            (
                "output 0 is NaN or infinite for 8 of 8 samples",
                "the model's outputs",
                "every output is finite",
                "look for NaN in the samples and for overflow in the model (an fp16 model may need fp32)",
            ),
            id="outputs that are not finite",
        ),
        pytest.param(
            {"test": "net.py:empty"},
            ("0 samples", "test data", "at least 8 samples", EMPTY),
            id="no test data",
        ),
        pytest.param(
            {"test": "net.py:few"},
            ("3 samples", "test data", "at least 8 samples", EMPTY),
            id="too few test data",
        ),
        pytest.param(
            {"train": "net.py:nothing"},
            (
                "got a NoneType",
                "{here}/net.py:nothing",
                "the function returns a torch Dataset or DataLoader",
                "return the Dataset; batching, order and workers are edgekit's",
            ),
            id="data that are none",
        ),
        pytest.param(
            {"train": "absent.npz"},
            ("no such file", "{here}/absent.npz", "an existing path", "it starts from the folder you are in"),
            id="data that are not there",
        ),
        pytest.param(
            {"test": "net.py:strange_labels"},
            (
                "label 9 of sample 0 is out of range (8 such labels)",
                "classification",
                "labels lie in 0..3, since the model has 4 outputs",
                ORDER,
            ),
            id="labels out of range",
        ),
        pytest.param(
            {"test": "net.py:five_channels"},
            (
                f"the model raised on a batch of the test data: {WIDE}",
                "net.py:model",
                "the model takes what the data give: float32 [8, 5, 16, 16]",
                STACKED,
            ),
            id="test data of another shape",
        ),
        pytest.param(
            {"train": "net.py:five_channels"},
            (
                f"the model raised on a batch of the training data: {WIDE}",
                "net.py:model",
                "the model takes what the data give: float32 [8, 5, 16, 16]",
                STACKED,
            ),
            id="training data of another shape",
        ),
    ],
)
def test_a_workload_that_cannot_be_taken_is_refused_at_once(fails, error_text, here, changes, error):
    assert fails("compress", *words(**changes)) == error_text(*(part.format(here=here) for part in error))


@pytest.mark.parametrize(
    "fault",
    [
        ("raising", "    return 1 / 0", "ZeroDivisionError: division by zero"),
        ("leaving", '    raise SystemExit("bye")', "SystemExit: bye"),
    ],
)
def test_a_model_function_that_raises_shows_the_users_line(fails, error_text, here, fault):
    model, at, problem = fault
    place = f"{line(here, at)} in {model}"
    text = error_text(f"{here}/net.py:{model} raised: {problem}", place, RUNS, MEND)
    assert fails("compress", *words(model=f"net.py:{model}")) == text


def test_a_script_that_ends_python_where_it_is_imported_is_named(fails, error_text, here):
    (here / "script.py").write_text("import sys\nsys.exit(2)\n")
    text = error_text("the file cannot be imported: SystemExit: 2", f"{here}/script.py:2 in <module>", RUNS, MEND)
    assert fails("export", *words(model="script.py:model")) == text


def test_labels_out_of_range_late_in_the_training_data_are_no_traceback(fails, error_text):
    rule = "labels lie in 0..3, since the model has 4 outputs"
    text = error_text("Target 9 is out of bounds.", "classification", rule, ORDER)
    assert fails("prune", *words(train="net.py:late_strange_labels")) == text


def test_training_data_without_labels_cannot_rank_channels(fails, error_text):
    text = error_text(
        "the data carry no target",
        "training data",
        "one target per sample, since the loss on the labels ranks channels",
        'return (x, y) from the dataset, or set task = "imitation" to take the original as reference',
    )
    assert fails("prune", *words(train="net.py:unlabelled")) == text


def test_a_sample_that_raises_is_named_with_its_line(edgekit, here):
    answer = edgekit("compress", *words(train="net.py:torn"), "--out", "run")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("error: the dataset's __getitem__ raised: ValueError: sample ")
    at = '            raise ValueError(f"sample {index} is torn")'
    assert f"\n  where: {line(here, at)} in __getitem__\n" in answer.err
    assert not (here / "run" / "report.json").exists()


def test_names_for_another_number_of_classes_are_refused_at_once(fails, error_text):
    text = error_text(
        "2 labels: ant, bee",
        "labels",
        "one for each of the model's 4 outputs",
        "name them with --labels (or labels in edgekit.toml), in the order of the outputs",
    )
    assert fails("compress", *words(), "--labels", "ant,bee") == text


@pytest.mark.parametrize("command", ["compress", "prune", "distill", "export", "quantize", "validate", "bundle"])
def test_every_command_names_a_missing_model(fails, tiny, command):
    needed = {
        "distill": ["--pruned", "pruned"],
        "quantize": ["--file", tiny],
        "validate": ["--file", tiny],
        "bundle": ["--file", f"fp32={tiny}"],
    }
    text = fails(command, *words(model="absent.py:model"), *needed.get(command, []))
    assert text.startswith("error: no file ")


def test_a_model_that_no_exporter_takes_shows_what_both_said(fails, here):
    text = fails("export", *words(model="net.py:undecided"), "--out", "model.onnx").partition("error: ")[2]
    first, torch_export, *rest = text.splitlines()
    assert first == "no exporter gave an ONNX file that agrees with the PyTorch model"
    assert torch_export.startswith("- torch.export: GuardOnDataDependentSymNode: ")
    assert line(here, "        return y if x[0, 0, 0, 0] > x[0, 0, 0, 1] else 2 * y") in text
    assert [row for row in rest if row.startswith("- torchscript: output 0 differs by ")]
    assert rest[-3:] == [
        "  where: Undecided",
        "  rule: no control flow that depends on values; sizes come from the inputs",
        "  way out: mend what the first reason names; `torch.export.export(model, args)` by itself tells more",
    ]


def test_a_run_that_cannot_export_leaves_nothing_that_looks_done(edgekit, here):
    answer = edgekit("compress", *words(model="net.py:undecided"), "--out", "run")
    assert (answer.code, answer.out) == (4, "")
    assert "error: no exporter gave an ONNX file" in answer.err
    left = [path.name for path in here.glob("run/**/*") if path.is_file()]
    assert not {"report.json", "done.json", "bundle.json", "model.onnx"} & set(left)


def test_prune_says_why_a_model_cannot_be_analysed(fails):
    text = fails("prune", *words(model="net.py:undecided"))
    assert "torch.export" in text
    assert "  way out: " in text


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("--time", "0", ("got '0'", "--time", "a positive duration", "write 90s, 15m or 1h30m")),
        ("--time", "soon", ("got 'soon'", "--time", "a positive duration", "write 90s, 15m or 1h30m")),
        ("--max-drop", "-1", ("got -1.0", "--max-drop", "a positive number (a drop of 0 is allowed)", "raise it")),
        ("--max-size-mb", "inf", ("got inf", "--max-size-mb", "a positive number")),
        ("--max-size-mb", "nan", ("got nan", "--max-size-mb", "a positive number")),
        ("--max-latency-ms", "inf", ("got inf", "--max-latency-ms", "a positive number")),
        ("--learning-rate", "0", ("got 0.0", "--learning-rate", "a positive number")),
        ("--epochs", "nan", ("got nan", "--epochs", "a positive number")),
        ("--provider", "tpu", ("unknown provider 'tpu'", "--provider", "cpu, cuda or both")),
        ("--provider", ",", ("got ','", "--provider", "cpu, cuda or cpu,cuda")),
        ("--grid", "0", ("got 0", "--grid", "a positive number of channels")),
        ("--image-size", "big", ("got 'big'", "--image-size", "a size such as 224, or height x width: 32x48")),
        ("--mean", "a,b", ("got 'a,b'", "--mean", "numbers with commas: 0.485,0.456,0.406")),
        (
            "--labels",
            "absent.txt",
            ("cannot read absent.txt: No such file or directory", "--labels", "a text file with one name a line"),
        ),
    ],
)
def test_an_option_out_of_range_is_named_before_anything_is_done(fails, error_text, option, value, error):
    assert fails("compress", *words(), option, value) == error_text(*error)


def test_the_demo_looks_at_its_options_before_it_trains(fails, error_text):
    text = error_text("got '0'", "--time", "a positive duration", "write 90s, 15m or 1h30m")
    assert fails("demo", "--time", "0") == text


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        (["compress", "--device", "z80"], ["Invalid value for '--device'", "'z80'", "'x86-vnni', 'x86-avx2', 'arm64'"]),
        (["compress", "--rounds", "many"], ["Invalid value for '--rounds'", "integer"]),
        (["compress", "--speed", "9"], ["No such option", "--speed"]),
        (["validate", "--file", "x.onnx", "--split", "odd"], ["Invalid value for '--split'", "'selection', 'test'"]),
        (["bench", "x.onnx", "--threads", "0"], ["Invalid value for '--threads'", "1"]),
        (["bundle", "--file", "fp32=x.onnx", "--samples", "0"], ["Invalid value for '--samples'", "1"]),
        (["bench"], ["Missing argument", "files"]),
        (["quantize", "-f", "x.onnx", "--bits", "3"], ["Invalid value for '--bits'", "'8', '4'"]),
        (["quantize"], ["Missing option '--file'"]),
        (["fly"], ["No such command 'fly'"]),
    ],
)
def test_a_wrong_command_line_ends_with_2(edgekit, here, asked, parts):
    answer = edgekit(*asked)
    assert (answer.code, answer.out) == (2, "")
    assert [part for part in parts if part not in answer.said] == []
    assert "-h' for help" in answer.said
    assert [path.name for path in here.iterdir()] == ["net.py"]


@pytest.mark.parametrize("command", ["validate", "bench", "run"])
def test_an_unknown_provider_is_no_other_one(fails, bundle, tiny, original, command):
    np.save("one.npy", np.zeros((3, 16, 16), np.float32))
    asked = {
        "validate": [*words(), "--file", original.path],
        "bench": [tiny],
        "run": [bundle.folder, "one.npy"],
    }
    text = fails(command, *asked[command], "--provider", "tpu")
    assert text.startswith("error: unknown provider 'tpu'\n  where: provider\n  rule: one of cpu, cuda, tensorrt")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime has the CUDA provider"
)
def test_cuda_where_there_is_none_is_an_error_and_not_the_cpu(fails, error_text, tiny):
    text = error_text(
        "provider 'cuda' is not in this onnxruntime",
        "provider",
        f"available here: {', '.join(onnxruntime.get_available_providers())}",
        "install onnxruntime-gpu instead of onnxruntime for CUDA; `edgekit doctor` tells more",
    )
    assert fails("bench", tiny, "--provider", "cuda") == text


def test_an_unknown_target_is_named_before_anything_is_read(fails, error_text, tiny):
    rule = "one or several of x86-vnni, x86-avx2, arm64, cuda, tensorrt, size, with commas"
    asked = ["quantize", *words(model="absent.py:model"), "--file", tiny, "--target"]
    assert fails(*asked, "arm64,z80") == error_text("unknown 'z80'", "--target", rule)
    assert fails(*asked, ",") == error_text("got ','", "--target", rule)


def test_bits_are_for_the_target_size(fails, error_text, tiny):
    text = error_text("got 4", "--bits", "only for --target size")
    assert fails("quantize", *words(), "--file", tiny, "--bits", "4") == text


ROOM = "the folder must exist or be creatable, be writable, and have room"
FREE = "free some space or name another folder; start the same command again and it goes on"


@pytest.fixture
def needed(pruned, original):
    """The options without which a command does not start."""
    options = {
        "distill": ["--pruned", pruned.folder],
        "quantize": ["--file", original.path],
        "bundle": ["--file", f"fp32={original.path}"],
    }
    return lambda command: options.get(command, [])


@pytest.mark.parametrize(
    "fault",
    [
        ("compress", "blocked", "Not a directory", "blocked/stages"),
        ("prune", "blocked", "File exists", "blocked"),
        ("distill", "blocked", "File exists", "blocked"),
        ("export", "blocked/model.onnx", "File exists", "blocked"),
        ("quantize", "blocked/model.onnx", "File exists", "blocked"),
        ("bundle", "blocked/net.edgekit", "File exists", "blocked"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named(fails, error_text, here, needed, fault):
    command, out, problem, where = fault
    (here / "blocked").write_text("mine")
    text = fails(command, *words(), *needed(command), "--out", out)
    # Some progress comes before it.
    assert text.endswith(error_text(f"cannot write: {problem}", where, ROOM, FREE))


def test_a_folder_where_the_file_is_to_be_is_named(fails, here):
    (here / "model.onnx").mkdir()
    text = fails("export", *words())
    assert "error: cannot write: Is a directory\n" in text
    assert list((here / "model.onnx").iterdir()) == []


def test_what_lies_where_a_bundle_is_to_be_is_not_replaced(fails, error_text, here, original):
    (here / "blocked").write_text("mine")
    text = error_text("something else is there", "blocked", "a new folder, or a bundle to replace", "name another")
    assert fails("bundle", *words(), "--file", f"fp32={original.path}", "--out", "blocked") == text


def test_bench_names_the_file_that_cannot_be_written(fails, error_text, here, tiny):
    (here / "blocked").write_text("mine")
    text = fails("bench", tiny, "--time", "0.1s", "--starts", "1", "--raw", "blocked/raw.json")
    assert text.endswith(error_text("cannot write: File exists", "blocked", ROOM, FREE))


AGAIN = "get the bundle again from where it was made; do not run this one"


@pytest.mark.parametrize("file", ["models/model/fp32/model.onnx", "models/model/int8-x86-vnni/model.onnx"])
def test_one_flipped_byte_in_a_model_is_found(edgekit, error_text, bundle, here, file):
    copy = here / "copy"
    shutil.copytree(bundle.folder, copy)
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)
    shown = edgekit("inspect", copy, "--json")
    assert (shown.code, shown.json["whole"], shown.json["changed"]) == (4, False, [file])
    rule = "every file has the SHA-256 that the bundle lists"
    told = {"problem": f"changed: {file}", "where": str(copy), "rule": rule, "way_out": AGAIN, "exit_code": 4}
    assert json.loads(shown.err) == {"error": told}
    assert edgekit("inspect", copy).code == 4
    np.save("one.npy", np.zeros((3, 16, 16), np.float32))
    ran = edgekit("run", copy, "one.npy")
    assert (ran.code, ran.out) == (4, "")
    problem = "changed: its SHA-256 is not the manifest's"
    assert ran.err == error_text(problem, f"{copy}/{file}", "every file as written", AGAIN)


@pytest.mark.parametrize("file", ["edgekit/bundle.json", "manifest.json", "models/model/component.json"])
def test_a_manifest_with_a_flipped_byte_is_refused(edgekit, bundle, here, file):
    copy = here / "copy"
    shutil.copytree(bundle.folder, copy)
    data = bytearray((copy / file).read_bytes())
    data[0] ^= 1
    (copy / file).write_bytes(data)
    np.save("one.npy", np.zeros((3, 16, 16), np.float32))
    for asked in (["inspect", copy], ["run", copy, "one.npy"]):
        answer = edgekit(*asked)
        assert (answer.code, answer.out) == (4, "")
        assert answer.err.startswith("error: ")
        assert file in answer.err


def test_a_bundle_that_is_not_there_is_named(fails, error_text):
    rule = "a bundle is a folder or a zip that holds edgekit/bundle.json"
    way_out = "name the folder that `edgekit compress` or `edgekit bundle` printed"
    assert fails("inspect", "absent.edgekit") == error_text("no such folder or file", "absent.edgekit", rule, way_out)
    assert fails("inspect", "net.py") == error_text("neither a folder nor a .zip", "net.py", rule, way_out)


def test_an_input_that_does_not_fit_the_bundle_is_named(fails, bundle, here):
    np.save("small.npy", np.zeros((3, 8, 8), np.float32))
    assert fails("run", bundle.folder, "small.npy").startswith("error: got float32 [1, 3, 8, 8]\n  where: tensor 'x'\n")
    assert "cannot read: " in fails("run", bundle.folder, "absent.npy")
    assert "the bundle has no preprocessing" in fails("run", bundle.folder, "photo.jpg")
    (here / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "cannot read: " in fails("run", bundle.folder, "torn.npz")


def test_files_that_cannot_be_measured_are_named(fails, error_text, here, tiny, make_onnx):
    (here / "text.onnx").write_text("no ONNX\n")
    make_onnx(here / "other.onnx", "z")
    make_onnx(here / "odd.onnx", "x", op="NoSuchOperator")
    problem, where = "no file absent.onnx", "command line"
    text = error_text(problem, where, "an ONNX file", "`edgekit export` writes one")
    assert fails("bench", tiny, "absent.onnx") == text
    assert fails("bench", tiny, "text.onnx").startswith("error: not an ONNX file: ")
    assert fails("inspect", "text.onnx").startswith("error: not an ONNX file: ")
    assert fails("bench", tiny, "other.onnx") == error_text(
        "takes and gives z float32 [?, 4] -> y float32 [?, 2]",
        "other.onnx",
        f"the same as {tiny}: x float32 [?, 4] -> y float32 [?, 2]",
        "compare files that were made from one model",
    )
    fault = json.loads(fails("bench", "odd.onnx", "--time", "0.1s", "--json"))["error"]
    assert "NoSuchOperator" in fault["problem"]
    assert (fault["where"], fault["exit_code"]) == ("odd", 4)


def test_a_file_that_does_not_run_is_a_row_and_the_others_are_measured(done, here, tiny, make_onnx):
    make_onnx(here / "odd.onnx", "x", op="NoSuchOperator")
    answer = done("bench", tiny, "odd.onnx", "--time", "0.1s", "--starts", "1", "--json").json
    measured, failed = answer["candidates"]
    assert (measured["status"], failed["status"]) == ("measured", "failed")
    assert "NoSuchOperator" in failed["reason"]


def test_inputs_that_do_not_fit_the_file_are_named(fails, error_text, here, tiny):
    np.savez("other.npz", z=np.zeros((1, 4), np.float32))
    np.savez("wide.npz", x=np.zeros((1, 5), np.float32))
    np.save("one.npy", np.zeros((1, 4), np.float32))
    (here / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    with zipfile.ZipFile("empty.npz", "w"):
        pass
    assert fails("bench", tiny, "--data", "other.npz") == error_text("got inputs ['z']", "feeds", "expected ['x']")
    assert fails("bench", tiny, "--data", "empty.npz") == error_text("got inputs []", "feeds", "expected ['x']")
    assert fails("bench", tiny, "--data", "wide.npz").startswith("error: got float32 [1, 5]\n  where: tensor 'x'\n")
    for name in ("one.npy", "torn.npz", "absent.npz"):
        text = fails("bench", tiny, "--data", name)
        assert text.startswith(f"error: cannot read {name}: ")
        assert text.endswith("\n  where: --data\n  rule: an .npz with one array for each input\n")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (["int4=tiny.onnx"], ("got 'int4=tiny.onnx'", "PRECISION[@TARGET]=FILE.onnx with int8, fp16, fp32", "")),
        (["tiny.onnx"], ("got 'tiny.onnx'", "PRECISION[@TARGET]=FILE.onnx with int8, fp16, fp32", "")),
        (
            ["fp32=tiny.onnx", "fp32=tiny.onnx"],
            ("got fp32=tiny.onnx, fp32=tiny.onnx", "one file for each PRECISION[@TARGET]", "leave one out"),
        ),
    ],
)
def test_a_variant_that_is_none_is_named(fails, error_text, tiny, value, error):
    assert tiny.is_file()
    problem, rule, way_out = error
    given = [word for each in value for word in ("--file", each)]
    assert fails("bundle", *words(), *given) == error_text(problem, "--file", rule, way_out)


def test_a_plan_for_another_model_is_refused(fails, pruned, here):
    (here / "net.py").write_text((here / "net.py").read_text().replace("width=32", "width=48"))
    text = fails("export", *words(), "--pruned", pruned.folder)
    assert text.startswith("error: the model's tensors have fingerprint ")
    assert text.endswith("  way out: apply it to the model it was made for, or prune this one\n")


def test_weights_that_were_changed_are_refused(fails, error_text, pruned, here):
    shutil.copytree(pruned.folder, here / "p")
    (here / "p" / "weights.safetensors").write_bytes(b"no weights")
    for asked in (["prune", *words(), "--replay", "p"], ["export", *words(), "--pruned", "p"]):
        text = fails(*asked)
        assert text.startswith("error: the weights do not fit: ")
        rule = "the weights that were saved with this plan"
        assert text.endswith(error_text("", "p/weights.safetensors", rule, "prune again").removeprefix("error: "))
