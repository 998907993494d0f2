"""Threads that wait for each other, noticed while a training runs."""

from __future__ import annotations

WINDOW_S, WINDOW_STEPS = 0.25, 2
"""What is compared is a mean over steps: at least so many, and so long together."""
SLOWED = 4.0
"""Steps that have become so many times as long are slowed down by other work."""
WORTH = 0.05
"""How much faster more threads have to be to be kept."""
RETRY_S = 30.0
"""Seconds until more threads are tried again; twice as many after each try that did not help."""


class Crowding:
    """How many threads the next step should take.

    Threads meet after every operator. Where other work holds a core, each meeting lasts until the system lets the late
    thread run: a small network was seen to train two hundred times as slowly on two threads as on one. So threads are
    halved where steps have become much slower, and more are tried now and then, since other work ends.

    Args:
        threads: what the training begins with.
        most: what it may have; more than `threads` where the beginning was crowded already.
        step_s: seconds of a step, as measured before.
        now: when the training begins.

    >>> crowding = Crowding(2, most=2, step_s=0.01, now=0.0)
    >>> [crowding.after(step_s, now) for step_s, now in ((0.9, 1.0), (0.9, 2.0), (0.02, 2.1))]
    [2, 1, 1]
    """

    def __init__(self, threads: int, *, most: int, step_s: float, now: float) -> None:
        self.threads, self.most = threads, most
        self._normal_s = step_s
        self._window: list[float] = []
        self._retry_s, self._retry_at = RETRY_S, now + RETRY_S
        self._before: tuple[int, float] | None = None

    def after(self, step_s: float, now: float) -> int:
        """The number of threads for the next step, after one that took `step_s` seconds and ended at `now`."""
        self._window.append(step_s)
        if len(self._window) >= WINDOW_STEPS and sum(self._window) >= WINDOW_S:
            self._look(sum(self._window) / len(self._window), now)
            self._window.clear()
        return self.threads

    def _look(self, mean_s: float, now: float) -> None:
        if self._before is not None:
            threads, before_s = self._before
            self._before = None
            if mean_s < before_s * (1 - WORTH):
                # What is slow with the better number of threads is what is normal now.
                self._normal_s, self._retry_s = mean_s, RETRY_S
            else:
                self.threads, self._retry_s = threads, 2 * self._retry_s
            self._retry_at = now + self._retry_s
        elif self.threads > 1 and mean_s > SLOWED * self._normal_s:
            self.threads //= 2
            self._retry_at = now + self._retry_s
        elif self.threads < self.most and now >= self._retry_at:
            self._before = (self.threads, mean_s)
            self.threads = min(2 * self.threads, self.most)
        else:
            self._normal_s = min(self._normal_s, mean_s)
