"""Interrupts: a polite kill ends a program like Ctrl-C, and its clean-up is not disturbed.

SIGINT, SIGTERM and SIGHUP (a closed terminal) mean the same: stop, and leave nothing behind.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Final

#: Names of the signals that end a program politely, as far as this system has them.
_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_NUMBERS: Final = tuple(n for n in signal.Signals if n.name in _NAMES)

#: A closed terminal sends SIGHUP twice (the kernel and the shell), and people press Ctrl-C twice:
#: what arrives so soon, in seconds, after an interrupt is the same wish and must not hit its
#: clean-up.
_SAME_WISH_S: Final = 1.0

_last_interrupt = -_SAME_WISH_S

# The signals collected by the block that is open now; only the main thread reads or sets it.
_collecting: list[int] | None = None


def interrupt(number: int, frame: object) -> None:
    """Handle a signal: raise what Ctrl-C raises, once."""
    global _last_interrupt
    now = time.monotonic()
    if now - _last_interrupt < _SAME_WISH_S:
        return
    _last_interrupt = now
    raise KeyboardInterrupt


def end_like_interrupt() -> None:
    """Make every polite signal clean up like Ctrl-C; signals that are ignored (nohup) stay so."""
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def ignore_interrupts() -> None:
    """Let nothing disturb the last moments of a program that has been interrupted.

    While Python shuts down it gives signals with a handler back to the system, so a repeated
    signal would end the program with its own number instead of the exit status; ignored signals
    stay ignored.
    """
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Hold SIGINT back until the end of the block.

    Programs that are started inside never see one (the mask is inherited): Ctrl-C on a terminal,
    which goes to all of them, is then a matter of the program that started them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def signals_deferred() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP inside the block and deliver them at its end.

    Without this, SIGTERM would end a program on the spot, and a second Ctrl-C would interrupt the
    clean-up after the first. Handlers that a program installed itself are left in place, except
    :func:`interrupt`; a block inside a block adds nothing; in a thread other than the main one
    nothing is collected.

    Yields:
        The numbers of the signals that have arrived.
    """
    global _collecting
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    if _collecting is not None:
        yield _collecting
        return
    received: list[int] = []
    previous = {number: signal.getsignal(number) for number in _NUMBERS}

    def collect(number: int, frame: object) -> None:
        if _collecting is received:
            received.append(number)
        else:  # the block is over: its end was interrupted before it came to this handler
            signal.signal(number, previous[signal.Signals(number)])
            signal.raise_signal(number)

    _collecting = received
    try:
        for number, handler in previous.items():
            if handler in (signal.SIG_DFL, signal.default_int_handler, interrupt):
                signal.signal(number, collect)
        yield received
    finally:
        _collecting = None
        for number, handler in previous.items():
            if signal.getsignal(number) is collect:
                signal.signal(number, handler)
        for arrived in dict.fromkeys(received):
            signal.raise_signal(arrived)
