"""What a camera sees, frame by frame: the answer, how sure it is, frames per second.

    python camera.py resnet20.edgekit              # the first camera, through OpenCV
    python camera.py resnet20.edgekit photos/      # a folder of images, in the order of their names
    python camera.py resnet20.edgekit street.mp4   # a video, through OpenCV; frames.npy, uint8 [n, H, W, 3], without it

Needs edgekit with onnxruntime; Pillow for image files; OpenCV (`opencv-python`) for cameras and videos alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device import load
from edgekit.device.model import plain
from edgekit.device.processing.image import read_image
from edgekit.errors import DataError, EdgekitError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
SMOOTHING = 0.9
"""Weight of what came before in the frames per second that are shown."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict until the frames end, or Ctrl-C; 4 where the bundle or the source is at fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle that takes images")
    parser.add_argument("source", nargs="?", default="0", help="a camera's number (default 0), a folder, or a file")
    parser.add_argument("--once", action="store_true", help="one frame, then end")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime (default 1)")
    parser.add_argument("--show", action="store_true", help="show the frames in a window, too (OpenCV); q ends")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each frame")
    options = parser.parse_args(arguments)
    try:
        watch(options)
    except EdgekitError as error:
        print(error, file=sys.stderr)
        return EdgekitError.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def watch(options: argparse.Namespace) -> None:
    """Print a line for each frame."""
    model = load(options.bundle, threads=options.threads)
    last, rate = time.perf_counter(), 0.0
    for name, image in frames(options.source):
        begin = time.perf_counter()
        answer = model.predict(image)
        now = time.perf_counter()
        rate = SMOOTHING * rate + (1 - SMOOTHING) / (now - last) if rate else 1 / (now - last)
        took_ms, last = 1e3 * (now - begin), now
        if options.json:
            print(json.dumps({"frame": name, "answer": plain(answer), "ms": took_ms, "fps": rate}), flush=True)
        else:
            print(f"{name}: {said(answer)}  {took_ms:.1f} ms  {rate:.1f} fps", flush=True)
        if (options.show and not shown(image, said(answer))) or options.once:
            return


def said(answer: Any) -> str:
    """An answer in one line."""
    if isinstance(answer, tuple):
        return "; ".join(map(str, answer)) or "nothing"
    if isinstance(answer, dict):
        return ", ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in answer.items())
    return str(answer)


def frames(source: str) -> Iterator[tuple[str, np.ndarray]]:
    """Names and images uint8 [H, W, 3] in RGB order."""
    path = Path(source)
    if path.is_dir():
        for each in sorted(path.iterdir()):
            if each.suffix.lower() in IMAGES:
                yield each.name, read_image(each)
    elif path.suffix.lower() in IMAGES:
        yield path.name, read_image(path)
    elif path.suffix.lower() == ".npy":
        yield from stored(path)
    else:
        yield from captured(source)


def stored(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The frames of an array file, read one by one."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the frames: {error}", where=str(path), rule="uint8 [frames, H, W, 3]") from error
    if array.ndim != 4 or array.dtype != np.uint8:
        raise DataError(f"got {array.dtype} {list(array.shape)}", where=str(path), rule="uint8 [frames, H, W, 3]")
    for index, frame in enumerate(array):
        yield f"frame {index}", np.array(frame)


def captured(source: str) -> Iterator[tuple[str, np.ndarray]]:
    """The frames of a camera or a video."""
    cv2 = opencv()
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not capture.isOpened():
        raise DataError(
            "cannot open it",
            where=source,
            rule="a camera's number, a video that OpenCV reads, an image, a folder of images, or an .npy file",
        )
    try:
        index = 0
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield f"frame {index}", np.ascontiguousarray(frame[:, :, ::-1])  # OpenCV's order is BGR.
            index += 1
    finally:
        capture.release()


def shown(image: np.ndarray, text: str) -> bool:
    """Show a frame with its answer; whether to go on."""
    cv2 = opencv()
    picture = np.ascontiguousarray(image[:, :, ::-1])
    cv2.putText(picture, text, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 255, 0), 2)
    cv2.imshow("edgekit", picture)
    return bool(cv2.waitKey(1) & 0xFF != ord("q"))


def opencv() -> Any:
    """The module cv2."""
    try:
        import cv2
    except ImportError as error:
        raise DataError(
            "OpenCV is not installed",
            where="camera, video or window",
            rule="a folder of images, an image or an .npy file needs no OpenCV",
            way_out="pip install opencv-python (opencv-python-headless without --show)",
        ) from error
    return cv2


if __name__ == "__main__":
    sys.exit(main())
