"""Ctrl-C that cannot get lost.

Python drops an exception that is raised in a finalizer or in a callback from C, and exporting a model runs many of
both: a KeyboardInterrupt that comes in such a moment would be printed as ignored, and the run would go on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Remembers that an interrupt came, and raises it again where work is told of."""

    def __init__(self) -> None:
        self._came = False

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Within this, an interrupt is remembered. Where interrupts are ignored, as under nohup, they stay so."""
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if not usual or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._came = False
        signal.signal(signal.SIGINT, self._remember)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Go on, unless an interrupt came.

        Raises:
            KeyboardInterrupt: it did.
        """
        if self._came:
            raise KeyboardInterrupt

    def _remember(self, _signal: int, _frame: FrameType | None) -> None:
        self._came = True
        raise KeyboardInterrupt


INTERRUPTS = Interrupts()
"""Of this process."""
