"""Ctrl-C that comes where Python drops exceptions."""

import os
import signal

import pytest

from edgekit.cli import show
from edgekit.cli.interrupts import INTERRUPTS
from edgekit.progress import Step


@pytest.fixture(autouse=True)
def _as_in_a_terminal():
    """Under nohup, or in the background of a script, Python starts with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("quiet", [True, False])
def test_an_interrupt_that_a_finalizer_drops_comes_at_the_next_step(quiet):
    with INTERRUPTS.remembered(), show.progress(quiet=quiet) as progress:
        progress(Step("working", 1, 3))
        Finalized()  # Dropped at once: the KeyboardInterrupt is raised within the finalizer, and ignored.
        with pytest.raises(KeyboardInterrupt):
            progress(Step("working", 2, 3))


def test_the_handler_is_put_back_and_an_old_interrupt_is_forgotten():
    with pytest.raises(KeyboardInterrupt), INTERRUPTS.remembered():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with INTERRUPTS.remembered():
        INTERRUPTS.check()


def test_where_interrupts_are_ignored_they_stay_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with INTERRUPTS.remembered():
            os.kill(os.getpid(), signal.SIGINT)
            INTERRUPTS.check()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
