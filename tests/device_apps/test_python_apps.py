"""The Python apps say what the golden vectors say; the service keeps its word under load."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import subprocess
import sys
import threading
import wave
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgekit.bundle import Golden, Variant, write_bundle
from edgekit.device import load
from edgekit.device.processing import ImagePreprocessing, LogMelPreprocessing
from edgekit.spec import IOSpec, TensorSpec

PYTHON = Path(__file__).parents[2] / "tools" / "device_apps" / "python"


PICTURES = ImagePreprocessing(size=(4, 4), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
SOUND = LogMelPreprocessing(sample_rate=8000, samples=2000, window=256, hop=250, mels=8, floor=1e-4)
WEIGHTS = np.random.default_rng(0).standard_normal((48, 3)).astype(np.float32)


def linear(folder, name, weights, shape):
    """y = flatten(x) @ weights, as a file and its inputs and outputs."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    spec = IOSpec(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", *shape)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", weights.shape[1])),),
    )
    return {"variants": {"fp32": Variant(path=path)}, "spec": spec, "name": name}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A bundle that tells pictures apart, its images, and what it must say of each."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    images = [random.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(6)]
    inputs = [PICTURES.apply(image) for image in images]
    scores = [(x.reshape(1, -1) @ WEIGHTS) for x in inputs]
    golden = [
        Golden(inputs={"x": x}, outputs={"y": y}, raw=image) for x, y, image in zip(inputs, scores, images, strict=True)
    ]
    labels = ("circle", "square", "star")
    path = write_bundle(
        folder / "shapes.edgekit",
        **linear(folder, "shapes", WEIGHTS, (3, 4, 4)),
        preprocessing=PICTURES,
        labels=labels,
        golden=golden,
    )
    powers = [np.exp(y[0].astype(np.float64) - y.max()) for y in scores]
    expected = [(labels[int(y.argmax())], float(p.max() / p.sum())) for y, p in zip(scores, powers, strict=True)]
    return SimpleNamespace(path=path, images=images, expected=expected, labels=labels)


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """A bundle that tells a low tone, a high tone and silence apart: a linear map that is exact for one of each."""
    folder = tmp_path_factory.mktemp("tones")
    time_s = np.arange(2000) / 8000
    examples = [0.5 * np.sin(2 * np.pi * hertz * time_s) for hertz in (400, 3000, 0)]
    features = np.concatenate([SOUND.apply(each) for each in examples])
    weights = (np.linalg.pinv(features.reshape(3, -1)) @ (10 * np.eye(3))).astype(np.float32)
    made = linear(folder, "tones", weights, features.shape[1:])
    return write_bundle(folder / "tones.edgekit", **made, preprocessing=SOUND, labels=("low", "high", "silence"))


def script(path):
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(Path(path).stem, PYTHON / path)
    made = module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def tells(answer, expected):
    return answer["label"] == expected[0] and answer["confidence"] == pytest.approx(expected[1], abs=1e-5)


@pytest.mark.parametrize("source", ["folder", "frames.npy", "one.png"])
def test_the_camera_says_what_the_golden_vectors_say(pictures, tmp_path, capsys, source):
    (tmp_path / "folder").mkdir()
    for index, image in enumerate(pictures.images):
        Image.fromarray(image).save(tmp_path / "folder" / f"{index}.png")
    Image.fromarray(pictures.images[0]).save(tmp_path / "one.png")
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    np.save(tmp_path / "frames.npy", np.stack(pictures.images))
    assert script("camera.py").main([str(pictures.path), str(tmp_path / source), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = pictures.expected[:1] if source == "one.png" else pictures.expected
    assert len(lines) == len(expected)
    assert all(tells(line["answer"], each) and line["fps"] > 0 for line, each in zip(lines, expected, strict=True))


def test_the_camera_in_words_and_once(pictures, tmp_path, capsys):
    np.save(tmp_path / "frames.npy", np.stack(pictures.images))
    assert script("camera.py").main([str(pictures.path), str(tmp_path / "frames.npy"), "--once"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    label, confidence = pictures.expected[0]
    assert line.startswith(f"frame 0: {label} ({confidence:.1%})")
    assert line.endswith(" fps")


def test_the_camera_says_what_is_wrong(pictures, tmp_path, capsys, monkeypatch):
    camera = script("camera.py")
    np.save(tmp_path / "odd.npy", np.zeros((3, 4)))
    assert camera.main([str(pictures.path), str(tmp_path / "odd.npy")]) == 4
    assert "uint8 [frames, H, W, 3]" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert camera.main([str(pictures.path)]) == 4
    assert "OpenCV is not installed" in capsys.readouterr().err


def test_the_camera_turns_opencvs_colours_around(pictures, capsys, monkeypatch):
    waiting = [(True, image[:, :, ::-1]) for image in pictures.images]
    capture = SimpleNamespace(
        isOpened=lambda: True, read=lambda: waiting.pop(0) if waiting else (False, None), release=lambda: None
    )
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=lambda source: {0: capture}[source]))
    assert script("camera.py").main([str(pictures.path), "0", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(tells(line["answer"], each) for line, each in zip(lines, pictures.expected, strict=True))


def sounds():
    """Silence, a low tone from 1 s, silence, a high tone from 2.5 s, silence; 4 s of 8000 Hz."""
    time_s = np.arange(32_000) / 8000
    low = np.sin(2 * np.pi * 400 * time_s) * ((time_s >= 1) & (time_s < 1.7))
    high = np.sin(2 * np.pi * 3000 * time_s) * ((time_s >= 2.5) & (time_s < 3.2))
    return (16_000 * (low + high)).astype("<i2")


def wav(path, samples, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def test_listening_hears_each_tone_once(tones, tmp_path, capsys, monkeypatch):
    listen = script("listen.py")
    wav(tmp_path / "tones.wav", sounds())
    options = ["--ignore", "silence", "--hop", "0.05", "--json"]
    assert listen.main([str(tones), str(tmp_path / "tones.wav"), *options]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["label"] for event in events] == ["low", "high"]
    assert 1.0 < events[0]["time_s"] < 1.5
    assert 2.5 < events[1]["time_s"] < 3.0
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(sounds().tobytes())))
    assert listen.main([str(tones), "-", *options]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == events


def test_a_short_recording_is_one_window(tones, tmp_path, capsys):
    wav(tmp_path / "short.wav", sounds()[9000:10_000])
    assert script("listen.py").main([str(tones), str(tmp_path / "short.wav"), "--on", "0.4", "--off", "0.3"]) == 0
    samples = sounds()[9000:10_000].astype(np.float32) / 32768
    expected = load(tones).predict(samples)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split() == ["0.12", "s", expected.label, f"({expected.confidence:.1%})"]


def test_hysteresis():
    events = script("listen.py").Hysteresis(("a", "b"), on=0.8, off=0.5, windows=1, ignored=("b",))
    series = [0.1, 0.9, 0.7, 0.9, 0.4, 0.79, 0.85, 0.6]
    found = [[event.label for event in events.hear(t, np.array([p, 1 - p]))] for t, p in enumerate(series)]
    assert found == [[], ["a"], [], [], [], [], ["a"], []]
    means = script("listen.py").Hysteresis(("a",), on=0.8, off=0.5, windows=2, ignored=())
    assert [len(list(means.hear(t, np.array([p])))) for t, p in enumerate([0.7, 0.9, 0.6])] == [0, 1, 0]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--on", "0.2"], "0 < off <= on <= 1"),
        (["--ignore", "noise"], "one of low, high, silence"),
    ],
)
def test_listening_says_what_is_wrong(tones, tmp_path, capsys, words, text):
    wav(tmp_path / "s.wav", sounds())
    assert script("listen.py").main([str(tones), str(tmp_path / "s.wav"), *words]) == 4
    assert text in capsys.readouterr().err


def test_listening_wants_sound(pictures, tones, tmp_path, capsys):
    wav(tmp_path / "s.wav", sounds(), rate=16_000)
    assert script("listen.py").main([str(tones), str(tmp_path / "s.wav")]) == 4
    assert "16000 Hz" in capsys.readouterr().err
    assert script("listen.py").main([str(pictures.path), "-"]) == 4
    assert "preprocessing image" in capsys.readouterr().err


class Gate:
    """A session whose runs wait until the gate is open."""

    def __init__(self, session):
        self.session, self.open = session, threading.Event()

    def run(self, names, feeds):
        assert self.open.wait(20)
        return self.session.run(names, feeds)


@pytest.fixture
def service(monkeypatch):
    """The service's module; its neighbours are found as they are when it is started by its folder."""
    monkeypatch.syspath_prepend(str(PYTHON / "service"))
    for name in ("app", "decoding", "metrics"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import app

    yield app
    for name in ("app", "decoding", "metrics"):
        sys.modules.pop(name, None)


def serve(app, talk):
    """What `talk` gives, which is handed a client of the running app."""

    async def run():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            return await talk(client)

    return asyncio.run(run())


def figures(text):
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


def test_concurrent_requests_get_their_own_answers_and_the_metrics_add_up(service, pictures):
    model = load(pictures.path)

    async def talk(client):
        async def ask(index):
            image = pictures.images[index % 6]
            if index % 3 == 1:
                return await client.post("/predict", json={"raw": image.tolist()})
            if index % 3 == 2:
                return await client.post("/predict", json={"inputs": {"x": model.feeds(image)["x"].tolist()}})
            return await client.post("/predict", content=png(image), headers={"content-type": "image/png"})

        answers = await asyncio.gather(*[ask(index) for index in range(30)])
        return answers, await client.get("/metrics"), await client.get("/ready"), await client.get("/health")

    answers, metrics, ready, health = serve(service.create_app(model, service.Limits(queue=100)), talk)
    for index, response in enumerate(answers):
        assert response.status_code == 200
        assert tells(response.json()["answer"], pictures.expected[index % 6])
        assert response.json()["bundle"] == {"digest": model.digest, "name": "shapes", "variant": "fp32"}
        assert response.headers["x-edgekit-bundle"] == model.digest
    assert ready.status_code == health.status_code == 200
    assert ready.json()["batches"] == "yes"
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = figures(metrics.text)
    assert found['edgekit_requests_total{status="200"}'] == 30
    assert found['edgekit_inputs_total{end="answered"}'] == 30
    assert found["edgekit_latency_seconds_count"] == found['edgekit_latency_seconds_bucket{le="+Inf"}'] == 30
    assert found["edgekit_batch_size_sum"] == 30
    assert found["edgekit_batch_size_count"] <= 30
    assert f'digest="{model.digest}"' in metrics.text


def test_a_full_queue_is_answered_503_and_a_slow_answer_504(service, pictures):
    import dataclasses

    model = load(pictures.path)
    gate = Gate(model.session)
    held = dataclasses.replace(model, session=gate)

    async def talk(client):
        app.state.service.batcher.model = held
        batcher = app.state.service.batcher
        body, headers = png(pictures.images[0]), {"content-type": "image/png"}

        async def ask():
            return await client.post("/predict", content=body, headers=headers)

        async def until(running, waiting):
            while (batcher.statistics().running, batcher.statistics().waiting) != (running, waiting):  # noqa: ASYNC110
                await asyncio.sleep(0.002)

        slow = [asyncio.ensure_future(ask())]
        await until(1, 0)
        slow += [asyncio.ensure_future(ask()) for _ in range(2)]
        await until(1, 2)
        shed = [await ask() for _ in range(4)]
        slow = await asyncio.gather(*slow)
        gate.open.set()
        await until(0, 0)
        return shed, slow, await ask(), figures((await client.get("/metrics")).text)

    # One runs and two wait; what comes then is shed.
    app = service.create_app(model, service.Limits(queue=2, max_batch=1, predict_timeout_s=1.0))
    shed, slow, last, found = serve(app, talk)
    assert {response.status_code for response in shed} == {503}
    assert all(response.headers["retry-after"] == "1" for response in shed)
    assert "2 inputs wait" in shed[0].json()["error"]["problem"]
    assert [response.status_code for response in slow] == [504] * 3
    assert last.status_code == 200
    assert found["edgekit_inputs_shed_total"] == len(shed) == found['edgekit_requests_total{status="503"}']
    assert found['edgekit_requests_total{status="504"}'] == 3
    # Who had begun to run was answered in vain; those that waited were taken out.
    assert found['edgekit_inputs_total{end="answered"}'] == 2
    assert found['edgekit_inputs_total{end="cancelled"}'] == 2


@pytest.mark.parametrize(
    "case",
    [
        (b"no image", "image/jpeg", 400, "cannot read the image"),
        (b"{", "application/json", 400, "not JSON"),
        (b'{"raw": [[[1, 2], [3]]]}', "application/json", 400, "not all rows are of one length"),
        (b'{"raw": [[[300, 2, 1]]]}', "application/json", 400, "a number is out of range"),
        (b'{"raw": [["a"]]}', "application/json", 400, "numbers of type uint8"),
        (b'{"raw": [[1.5]]}', "application/json", 400, "numbers of type uint8"),
        (b'{"inputs": {"y": [1]}}', "application/json", 400, "expected x"),
        (b'{"inputs": {"x": [[1.0]]}}', "application/json", 400, "float32 [batch, 3, 4, 4]"),
        (b'{"inputs": {}}', "application/json", 400, "expected ['x']"),
        (b'{"other": 1}', "application/json", 400, '{"raw": ...}'),
        (b"x", "text/plain", 415, "application/json"),
        (b"x" * 2001, "image/png", 413, "at most 2000 bytes"),
    ],
)
def test_a_malformed_request_is_refused_with_the_reason(service, pictures, case):
    content, kind, status, text = case

    async def talk(client):
        response = await client.post("/predict", content=content, headers={"content-type": kind})

        async def streamed():
            yield content

        again = await client.post("/predict", content=streamed(), headers={"content-type": kind})
        return response, again

    limits = service.Limits(max_body_bytes=2000)
    for response in serve(service.create_app(load(pictures.path), limits), talk):
        assert response.status_code == status
        error = response.json()["error"]
        assert set(error) == {"problem", "where", "rule", "way_out"}
        assert text in " ".join(error.values())
        assert str(Path.home()) not in response.text


def test_what_goes_wrong_inside_stays_inside(service, pictures, monkeypatch, caplog):
    async def talk(client):
        def broken(*_):
            raise RuntimeError("a secret")

        monkeypatch.setattr(service, "plain", broken)
        return await client.post("/predict", json={"raw": pictures.images[0].tolist()})

    response = serve(service.create_app(load(pictures.path)), talk)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "secret" in caplog.text


def test_numbers_that_json_has_not_are_null(service):
    assert service.finite({"a": [1.0, float("nan"), [float("inf")]], "b": "x"}) == {"a": [1.0, None, [None]], "b": "x"}


def test_the_server_starts_answers_and_ends_when_told(pictures):
    command = [sys.executable, str(PYTHON / "service"), str(pictures.path), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = None
        while address is None:
            line = process.stderr.readline()
            assert line, "the server ended"
            address = re.search(r"running on (http://\S+)", line)
        with httpx.Client(base_url=address[1]) as client:
            headers = {"content-type": "image/png"}
            response = client.post("/predict", content=png(pictures.images[2]), headers=headers)
            assert tells(response.json()["answer"], pictures.expected[2])
            assert client.get("/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
        assert "Application shutdown complete" in said
    finally:
        process.kill()
        process.communicate()


def test_the_server_refuses_a_bundle_that_is_not_the_one(pictures):
    command = [sys.executable, str(PYTHON / "service"), str(pictures.path), "--digest", "0" * 64]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "another bundle" in done.stderr
