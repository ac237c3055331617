"""Responsiveness to keys: garbage collection during replies, and the frame rate."""

import gc
import os
import subprocess
import sys

import pytest

from edgechat.tui.responsiveness import no_garbage_collection


def test_garbage_collection_waits_for_the_last_reply():
    assert gc.isenabled()
    with no_garbage_collection():
        with no_garbage_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_garbage_collection_continues_after_a_failed_reply():
    with pytest.raises(ValueError, match="no reply"), no_garbage_collection():
        raise ValueError("no reply")
    assert gc.isenabled()


def test_garbage_collection_stays_disabled_if_it_was():
    gc.disable()
    try:
        with no_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("asked", "got"), [(None, "120"), ("30", "30")])
def test_the_chat_has_a_high_frame_rate_unless_the_user_sets_it(asked, got):
    environ = {name: value for name, value in os.environ.items() if name != "TEXTUAL_FPS"}
    asks = [sys.executable, "-c", "import edgechat.tui, textual.constants; print(textual.constants.MAX_FPS)"]
    environ |= {"TEXTUAL_FPS": asked} if asked else {}
    said = subprocess.run(asks, env=environ, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == got
