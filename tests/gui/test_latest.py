"""Calls in another thread of which the latest wins."""

from __future__ import annotations

import threading

import pytest
from qtpy.QtCore import QThreadPool

from napari_sadp.widgets._latest import LatestRunner

pytestmark = pytest.mark.gui


class Log:
    """A runner and what it hands over."""

    def __init__(self) -> None:
        self.results: list = []
        self.errors: list = []
        self.runner = LatestRunner(self.results.append, self.errors.append, lambda: None)


@pytest.fixture
def log():
    return Log()


def call_to_its_end(runner, function):
    """Submit a function and wait, without serving the GUI, until its thread has come to its end."""
    threads = []

    def call():
        threads.append(threading.current_thread())
        return function()

    runner.submit(call)
    # the thread pool's own wait: the signals of the worker stay in the queue of this thread
    assert QThreadPool.globalInstance().waitForDone(10_000)
    assert threads


def fail():
    raise ValueError("no")


def test_a_result_arrives(qtbot, log):
    call_to_its_end(log.runner, lambda: 5)
    assert log.results == []
    qtbot.waitUntil(lambda: not log.runner.busy)
    assert log.results == [5]


def test_a_result_on_its_way_is_forgotten_with_the_call(qtbot, log):
    call_to_its_end(log.runner, lambda: 5)
    log.runner.cancel()
    qtbot.waitUntil(lambda: not log.runner.stopping)
    assert log.results == []


def test_an_error_on_its_way_is_forgotten_with_the_call(qtbot, log):
    call_to_its_end(log.runner, fail)
    log.runner.cancel()
    qtbot.waitUntil(lambda: not log.runner.stopping)
    assert log.errors == []


def test_the_call_after_a_cancelled_one_arrives(qtbot, log):
    call_to_its_end(log.runner, lambda: 5)
    log.runner.cancel()
    log.runner.submit(lambda: 6)
    qtbot.waitUntil(lambda: not log.runner.busy and not log.runner.stopping)
    assert log.results == [6]


def test_nothing_arrives_once_closed(qtbot, log):
    call_to_its_end(log.runner, lambda: 5)
    log.runner.close()
    qtbot.waitUntil(lambda: not log.runner.stopping)
    assert log.results == log.errors == []
