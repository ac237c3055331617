"""A task between the screen and the decoding thread: pacing and stopping."""

import gc
from types import SimpleNamespace

import pytest

from edgechat.tui import replytask as task_module
from edgechat.tui.messages import ReplyAdvanced, ReplyFinished
from edgechat.tui.replytask import FRAME, Job, ReplyTask, decode


class Stream:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of a task."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(task_module.time, "monotonic", lambda: clock.now)
    return clock


def test_progress_is_due_once_per_frame_after_the_last_was_drawn(clock):
    turn = ReplyTask(1, 1, [])
    assert turn.due()
    turn.drawn()
    assert not turn.due()  # no time has passed
    clock.now += 2 * FRAME
    assert turn.due()
    clock.now += 2 * FRAME
    assert not turn.due()  # not drawn yet
    turn.drawn()
    clock.now += 2 * FRAME
    assert turn.due()


def test_a_slow_screen_gets_as_much_time_for_other_work(clock):
    turn = ReplyTask(1, 1, [])
    assert turn.due()
    clock.now += 5 * FRAME
    turn.drawn()
    clock.now += 4.9 * FRAME
    assert not turn.due()
    clock.now += 0.2 * FRAME
    assert turn.due()


def test_stopping_cancels_the_stream():
    turn, stream = ReplyTask(1, 1, []), Stream()
    turn.attach(stream)
    assert not stream.cancelled
    turn.stop()
    assert turn.stopped
    assert stream.cancelled


def test_a_task_stopped_early_cancels_its_stream_on_arrival():
    turn, stream = ReplyTask(1, 1, []), Stream()
    turn.stop()
    turn.attach(stream)
    assert stream.cancelled


def test_no_garbage_is_collected_while_a_task_is_decoded():
    collected = []

    class Decoding(Stream):
        def updates(self):
            collected.append(gc.isenabled())
            yield "hi", ""

        def result(self):
            collected.append(gc.isenabled())
            return None, None

    engine = SimpleNamespace(decode=lambda turns, options: Decoding())
    posted = []
    decode(ReplyTask(1, 1, [Job(engine, ("hello",), {})]), posted.append)
    assert [type(message) for message in posted] == [ReplyAdvanced, ReplyFinished]
    assert collected == [False, False]
    assert gc.isenabled()
