"""Signals as exceptions, and as they were before."""

import os
import signal

import pytest

from sleep_lightning.runs.signals import STOP_SIGNALS, SignalsInterrupt


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_is_the_exit_code(number: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in STOP_SIGNALS]
    signals = SignalsInterrupt()
    with signals:
        for one in (number, signal.SIGINT):  # the second while the first is being obeyed
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), one)
    assert signals.exit_code == 128 + number
    assert [signal.getsignal(n) for n in STOP_SIGNALS] == before


def test_an_interruption_without_a_signal() -> None:
    assert SignalsInterrupt().exit_code == 130
