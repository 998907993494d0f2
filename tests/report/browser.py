"""Chromium over its debugging pipe: JSON with zero bytes between, on the descriptors 3 and 4. Standard library only."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_S = 120


def program():
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page, and all that was said about it: requests, console messages, exceptions, violations of its policy."""

    def __init__(self, chromium):
        self.profile = tempfile.mkdtemp(prefix="edgekit-chromium-")
        self.downloads = Path(tempfile.mkdtemp(prefix="edgekit-downloads-"))
        theirs_in, self.out = os.pipe()
        self.inp, theirs_out = os.pipe()
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        words += ["--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"]
        words += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

        def place():
            # Through high numbers, since 3 or 4 may be one of the pipe's own.
            for wanted, had in ((103, theirs_in), (104, theirs_out)):
                os.dup2(had, wanted)
            os.dup2(103, 3)
            os.dup2(104, 4)

        self.process = subprocess.Popen(
            [chromium, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,  # noqa: PLW1509 - nothing else runs in these tests
            close_fds=False,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session and not method.startswith("Browser."):
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            got = self._read()
            if got.get("id") == self.number:
                assert "error" not in got, f"{method}: {got['error']}"
                return got["result"]
            self.events.append(got)

    def wait_for(self, method):
        while True:
            for event in self.events:
                if event.get("method") == method:
                    return event["params"]
            self.events.append(self._read())

    def open(self, path, *, width=1280, height=900, dark=False, mobile=False):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.send("Page.navigate", url=Path(path).resolve().as_uri())
        self.wait_for("Page.loadEventFired")
        return self

    def value(self, expression):
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def said(self):
        """Console messages, exceptions and log entries since the page was opened."""
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in names]

    def requests(self):
        events = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in events]

    def save(self, selector):
        """Click a link that saves a file; its bytes."""
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        before = set(self.downloads.iterdir())
        self.value(f"document.querySelector({json.dumps(selector)}).click()")
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            new = [path for path in self.downloads.iterdir() if path not in before and ".crdownload" not in path.name]
            if new and not any(path.name.startswith(".") for path in new):
                return new[0].name, new[0].read_bytes()
            time.sleep(0.05)
        raise AssertionError(f"nothing was saved by {selector}")

    def picture(self, path, *, whole=True):
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def pdf(self):
        return base64.b64decode(self.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])

    def close(self):
        with contextlib.suppress(OSError):
            os.write(self.out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.inp)
        shutil.rmtree(self.profile, ignore_errors=True)
        shutil.rmtree(self.downloads, ignore_errors=True)

    def _clip(self, whole):
        if not whole:
            return {}
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _read(self):
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.inp], [], [], max(0.0, until - time.monotonic()))
            assert ready, "Chromium does not answer"
            more = os.read(self.inp, 1 << 20)
            assert more, "Chromium has gone"
            self.buffer += more
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)
