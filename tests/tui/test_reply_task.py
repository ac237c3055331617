"""A task between the screen and the decoding thread: pacing and stopping."""

import gc
from types import SimpleNamespace

import pytest

from edgechat.tui import reply_task as task_module
from edgechat.tui.messages import ReplyAdvanced, ReplyFinished
from edgechat.tui.reply_task import MIN_FRAME_SECONDS, Job, ReplyTask, run_task


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
    task = ReplyTask(1, 1, [])
    assert task.should_post_progress()
    task.on_progress_drawn()
    assert not task.should_post_progress()  # no time has passed
    clock.now += 2 * MIN_FRAME_SECONDS
    assert task.should_post_progress()
    clock.now += 2 * MIN_FRAME_SECONDS
    assert not task.should_post_progress()  # not drawn yet
    task.on_progress_drawn()
    clock.now += 2 * MIN_FRAME_SECONDS
    assert task.should_post_progress()


def test_a_slow_screen_gets_as_much_time_for_other_work(clock):
    task = ReplyTask(1, 1, [])
    assert task.should_post_progress()
    clock.now += 5 * MIN_FRAME_SECONDS
    task.on_progress_drawn()
    clock.now += 4.9 * MIN_FRAME_SECONDS
    assert not task.should_post_progress()
    clock.now += 0.2 * MIN_FRAME_SECONDS
    assert task.should_post_progress()


def test_stopping_cancels_the_stream():
    task, stream = ReplyTask(1, 1, []), Stream()
    task.attach(stream)
    assert not stream.cancelled
    task.stop()
    assert task.is_stopped
    assert stream.cancelled


def test_a_task_stopped_early_cancels_its_stream_on_arrival():
    task, stream = ReplyTask(1, 1, []), Stream()
    task.stop()
    task.attach(stream)
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
    run_task(ReplyTask(1, 1, [Job(engine, ("hello",), {})]), posted.append)
    assert [type(message) for message in posted] == [ReplyAdvanced, ReplyFinished]
    assert collected == [False, False]
    assert gc.isenabled()
