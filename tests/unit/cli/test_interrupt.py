"""Signals end a block in order, also where Python drops the exception of their handler."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from mesaform.cli import interrupt

HANG_GUARD_S = 60


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """A process with a terminal: one that nohup started ignores SIGHUP, and so does its child."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class SignalledWhenDeleted:
    """An object in whose destructor a signal comes."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_each_signal_interrupts(number):
    with pytest.raises(KeyboardInterrupt), interrupt.raised():
        signal.raise_signal(number)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_an_interruption_that_python_drops_comes_again(number):
    with pytest.raises(KeyboardInterrupt):
        delete_and_wait(number)


def delete_and_wait(number: signal.Signals) -> None:
    with interrupt.raised():
        SignalledWhenDeleted(number)
        threading.Event().wait(HANG_GUARD_S)


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupt.raised():
        signal.raise_signal(signal.SIGHUP)


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in interrupt.SIGNALS]
    with interrupt.raised():
        pass
    assert [signal.getsignal(number) for number in interrupt.SIGNALS] == before
