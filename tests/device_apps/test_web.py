"""The page, in a browser: it predicts what Python predicts, works without a network, and says why it refuses."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import runpy
import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edgekit.device import load
from tests.required import absent

pytestmark = pytest.mark.slow  # They install or compile what the default tests need not wait for.

HERE = Path(__file__).parent
node = runpy.run_path(str(HERE / "node.py"))
made = runpy.run_path(str(HERE / "bundles.py"))
room = runpy.run_path(str(HERE.parent / "report" / "browser.py"))
PATIENCE_S = 120
PHONE, DESK = {"width": 390, "height": 844, "mobile": True}, {"width": 1280, "height": 900, "mobile": False}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """By name: the bundle's folder, its zip, and raw inputs."""
    folder = tmp_path_factory.mktemp("bundles")
    kinds = {name: made[name](folder) for name in ("shapes", "words", "echo", "boxes")}
    return {
        name: SimpleNamespace(folder=bundle, zip=made["pack"](bundle), raws=raws)
        for name, (bundle, raws) in kinds.items()
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory, bundles):
    """The page, built with a bundle as the README says, and the others beside it."""
    place = node["workspace"](tmp_path_factory.mktemp("node"), "js", "web") / "web"
    words = ["npm", "run", "build", "--", str(bundles["shapes"].zip)]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("words", "echo", "boxes"):
        (place / "dist" / f"{name}.edgekit.zip").write_bytes(bundles[name].zip.read_bytes())
    return place / "dist"


class Server:
    """What `python -m http.server` is, on a port of its own; it keeps what it was asked for."""

    def __init__(self, folder):
        self.asked = asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                asked.append(self.path)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.url = f"http://localhost:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Page:
    """The page in a browser, and hands for it."""

    def __init__(self, browser):
        self.browser, self.value, self.send = browser, browser.value, browser.send

    def open(self, url, *, dark=False, **view):
        self.send("Emulation.setDeviceMetricsOverride", deviceScaleFactor=1, **(view or DESK))
        scheme = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.browser.events.clear()
        self.send("Page.navigate", url=url)
        self.browser.wait_for("Page.loadEventFired")
        self.until("document.documentElement.dataset.ready === 'yes'")
        return self

    def until(self, expression):
        end = time.monotonic() + PATIENCE_S
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < end, (expression, self.value("document.body.innerText"), self.browser.said())
            time.sleep(0.05)

    def text(self, name):
        return self.value(f"document.getElementById('{name}').textContent")

    def runs(self):
        return int(self.text("runs"))

    def place(self, name):
        """The middle of an element, in the window."""
        found = self.value(
            f"(() => {{ const e = document.getElementById('{name}'); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        return found[0], found[1]

    def click(self, name):
        x, y = self.place(name)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def mouse(self, kind, x, y):
        pressed = {"buttons": 1} if kind == "mouseMoved" else {"clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", **pressed)

    def draw(self, *points):
        """A line on the canvas, between points as offsets from its middle; until it is predicted from."""
        x, y = self.place("canvas")
        before = self.runs()
        for index, (dx, dy) in enumerate(points):
            self.mouse("mouseMoved" if index else "mousePressed", x + dx, y + dy)
        self.mouse("mouseReleased", x + points[-1][0], y + points[-1][1])
        self.settled(before)

    def settled(self, before):
        """Until there was a run since, and none is on its way."""
        self.until(f"Number(document.getElementById('runs').textContent) > {before}")
        last = None
        while last != (last := self.runs()):
            time.sleep(0.25)

    def choose(self, name, path):
        """Choose a file in a file field."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        field = self.send("DOM.querySelector", nodeId=root, selector=f"#{name}")["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=field)

    def drop(self, data, name, kind):
        """Drop a file on the page, as a user's hand does."""
        self.value(
            f"(() => {{ const data = new DataTransfer(); data.items.add(new File([new Uint8Array({list(data)})],"
            f"{json.dumps(name)}, {{type: '{kind}'}})); document.getElementById('board').dispatchEvent("
            "new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})); })()"
        )

    def pixels(self):
        """What is on the canvas, uint8 [H, W, 3]."""
        script = (
            "(() => { const c = document.getElementById('canvas'); const d = c.getContext('2d').getImageData(0, 0,"
            "c.width, c.height).data; let s = ''; for (const byte of d) s += String.fromCharCode(byte);"
            "return [c.width, c.height, btoa(s)]; })()"
        )
        width, height, data = self.value(script)
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[:, :, :3].copy()

    def assert_quiet(self, origin):
        assert self.browser.said() == []
        foreign = [url for url in self.browser.requests() if not url.startswith((origin, "blob:", "data:"))]
        assert foreign == []


@pytest.fixture(scope="module")
def browser(dist, tmp_path_factory):  # noqa: ARG001 - without node there is nothing to look at
    chromium = room["program"]()
    if chromium is None:
        absent("CHROMIUM", "no Chromium here (chromium, chromium-browser, google-chrome): the page is not looked at")
    # Its camera shows a test picture, its microphone beeps.
    media = tmp_path_factory.mktemp("chromium") / "chromium"
    media.write_text(
        f'#!/bin/sh\nexec {chromium} --use-fake-ui-for-media-stream --use-fake-device-for-media-stream "$@"\n'
    )
    media.chmod(0o755)
    found = room["Browser"](str(media))
    found.send("DOM.enable")
    yield found
    found.close()


@pytest.fixture(scope="module")
def server(dist):
    found = Server(dist)
    yield found
    found.stop()


@pytest.fixture
def page(browser):
    return Page(browser)


def shown(page):
    """The first label and its percentage, as the page has them."""
    return page.text("label"), page.text("confidence")


def wanted(prediction):
    return prediction.label, f"{100 * prediction.confidence:.1f} %"


def test_a_drawing_is_predicted_as_python_predicts_it(page, server, bundles):
    page.open(server.url, **PHONE)
    page.click("clear")
    page.draw((-60, -50), (-20, 40), (30, -30), (70, 60))
    drawn = page.pixels()
    assert (drawn < 64).any()
    assert (drawn > 192).any()
    assert shown(page) == wanted(load(bundles["shapes"].folder).predict(drawn))
    bars = page.value("[...document.querySelectorAll('#top li')].map(e => e.innerText.split('\\n')[0].trim())")
    assert len(bars) == 3
    assert page.text("this-run").endswith(" ms")
    assert page.text("median-of") == f"median of {page.runs()}"
    page.assert_quiet(server.url)


def test_a_dropped_image_is_predicted_as_python_predicts_it(page, server, bundles, tmp_path):
    image = np.random.default_rng(7).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    page.open(server.url, **DESK)
    before = page.runs()
    page.drop(data.getvalue(), "a.png", "image/png")
    page.settled(before)
    assert np.array_equal(page.pixels(), image)
    assert shown(page) == wanted(load(bundles["shapes"].folder).predict(image))
    # A photo as cameras make them, through the file field.
    Image.fromarray(image).resize((320, 240)).save(tmp_path / "a.jpg", quality=90)
    before = page.runs()
    page.choose("input-file", tmp_path / "a.jpg")
    page.settled(before)
    assert shown(page) == wanted(load(bundles["shapes"].folder).predict(tmp_path / "a.jpg"))
    page.assert_quiet(server.url)


def test_it_says_what_runs_and_why(page, server, bundles):
    page.open(server.url, **DESK)
    opened = load(bundles["shapes"].folder)
    assert page.text("name") == "shapes"
    assert opened.digest in page.text("facts")
    assert "cpu-int8" in page.text("why")
    assert "golden vectors" in page.text("why")
    assert page.text("status").startswith("verified")


def test_keys_draw_and_names_are_spoken(page, server, bundles):
    page.open(server.url, **DESK)
    page.click("clear")
    page.value("document.getElementById('canvas').focus()")
    before = page.runs()
    for key in (" ", *["ArrowRight"] * 5, *["ArrowUp"] * 4, " "):
        for kind in ("keyDown", "keyUp"):
            page.send("Input.dispatchKeyEvent", type=kind, key=key)
    page.settled(before)
    drawn = page.pixels()
    assert (drawn < 64).any()
    prediction = load(bundles["shapes"].folder).predict(drawn)
    assert shown(page) == wanted(prediction)
    page.until(f"document.getElementById('spoken').textContent === {json.dumps(', '.join(wanted(prediction)))}")
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    named = {node["role"]["value"] for node in tree if not node["ignored"] and not node.get("name", {}).get("value")}
    assert not named & {"button", "link", "textbox", "img", "image", "canvas"}


def test_a_bundle_that_does_not_verify_is_refused_with_the_reason(page, server, bundles, tmp_path):
    data = bytearray(bundles["words"].zip.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "words.edgekit.zip").write_bytes(data)
    page.open(server.url, **PHONE)
    page.choose("bundle-file", tmp_path / "words.edgekit.zip")
    page.until("!document.getElementById('refusal').hidden")
    assert page.text("refusal-title") == "words.edgekit.zip was refused"
    assert "changed" in page.text("refusal-problem")
    assert "every file as written" in page.text("refusal-about")
    # What ran before goes on.
    assert page.text("name") == "shapes"
    assert "shapes stays" in page.text("status")
    page.choose("bundle-file", bundles["boxes"].zip)
    page.until("document.getElementById('refusal').hidden && document.getElementById('name').textContent === 'boxes'")
    page.assert_quiet(server.url)


def test_detections_are_drawn_over_the_image(page, server, bundles):
    page.open(f"{server.url}?bundle=boxes.edgekit.zip", **DESK)
    found = load(bundles["boxes"].folder).predict(bundles["boxes"].raws[0])
    assert found
    assert page.value("document.querySelectorAll('#boxes rect').length") == len(found)
    corner = "['x', 'y'].map(name => Number(document.querySelector('#boxes rect').getAttribute(name)))"
    first = page.value(corner)
    assert first == pytest.approx(found[0].box[:2], abs=1e-3)


def test_text_and_sound(page, server, bundles):
    page.open(f"{server.url}?bundle=echo.edgekit.zip", **DESK)
    assert page.text("label") == load(bundles["echo"].folder).predict(bundles["echo"].raws[0])
    before = page.runs()
    page.value("document.getElementById('text').select()")
    page.send("Input.insertText", text="the cats sat")
    page.settled(before)
    assert page.text("label") == "the cats sat"
    page.open(f"{server.url}?bundle=words.edgekit.zip", **DESK)
    assert shown(page) == wanted(load(bundles["words"].folder).predict(bundles["words"].raws[0]))
    page.assert_quiet(server.url)


def test_a_picture_from_the_camera(page, server, bundles):
    page.open(server.url, **PHONE)
    page.click("camera")
    # No picture can be taken before the camera has shown one: it would be black.
    page.until("document.getElementById('camera-view').open && !document.getElementById('shoot').disabled")
    before = page.runs()
    page.click("shoot")
    page.settled(before)
    assert not page.value("document.getElementById('camera-view').open")
    taken = page.pixels()
    assert taken.std() > 5
    assert shown(page) == wanted(load(bundles["shapes"].folder).predict(taken))
    page.assert_quiet(server.url)


def test_a_recording_from_the_microphone(page, server):
    page.open(f"{server.url}?bundle=words.edgekit.zip", **PHONE)
    before = page.runs()
    page.click("record")
    page.settled(before)
    assert page.text("label") in {"yes", "no"}
    assert page.text("record") == "Record"
    page.assert_quiet(server.url)


def test_it_works_without_a_network_after_the_first_visit(page, dist, bundles):
    alone = Server(dist)
    page.open(alone.url, **DESK)
    assert page.text("offline") == "Works offline from now on."
    online = shown(page)
    alone.stop()
    asked = len(alone.asked)
    page.open(alone.url, **DESK)
    assert shown(page) == online
    page.click("clear")
    page.draw((-40, 0), (40, 10))
    assert shown(page) == wanted(load(bundles["shapes"].folder).predict(page.pixels()))
    assert len(alone.asked) == asked


def test_without_a_bundle_it_asks_for_one(page, dist, tmp_path, bundles):
    shutil.copytree(dist, tmp_path / "dist", ignore=shutil.ignore_patterns("*.zip"))
    bare = Server(tmp_path / "dist")
    try:
        page.open(bare.url, **PHONE)
        assert "404" in page.text("refusal-problem")
        page.choose("bundle-file", bundles["echo"].zip)
        page.until("document.getElementById('name').textContent === 'echo'")
    finally:
        bare.stop()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("view", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_scrolls_sideways(page, server, view, dark, tmp_path):
    page.open(server.url, dark=dark, **view)
    assert page.value("document.documentElement.scrollWidth") <= view["width"]
    too_wide = (
        "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert page.value(too_wide) == 0
    assert page.value(
        "[...document.querySelectorAll('button, label.button')].every(e => !e.offsetHeight || e.offsetHeight >= 44)"
    )
    page.browser.picture(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        pixels = np.asarray(picture.convert("L"), np.float64)
    assert picture.width == view["width"]
    # A page that is all of one colour shows nothing; a dark one is dark.
    assert pixels.std() > 5
    assert (np.median(pixels) < 100) == dark
