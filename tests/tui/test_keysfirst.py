"""No garbage is collected while a reply is decoded, and it is again once the last one is over, and the
clock of drawing is quick."""

import gc
import os
import subprocess
import sys

import pytest

from edgechat.tui.keysfirst import keys_first


def test_collections_wait_for_the_last_of_the_replies():
    assert gc.isenabled()
    with keys_first():
        with keys_first():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_reply_that_fails_lets_them_go_on():
    with pytest.raises(ValueError, match="no reply"), keys_first():
        raise ValueError("no reply")
    assert gc.isenabled()


def test_where_they_were_off_they_stay_off():
    gc.disable()
    try:
        with keys_first():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("asked", "got"), [(None, "120"), ("30", "30")])
def test_the_chat_draws_at_a_quick_clock_unless_the_user_sets_it(asked, got):
    environ = {name: value for name, value in os.environ.items() if name != "TEXTUAL_FPS"}
    asks = [sys.executable, "-c", "import edgechat.tui, textual.constants; print(textual.constants.MAX_FPS)"]
    environ |= {"TEXTUAL_FPS": asked} if asked else {}
    said = subprocess.run(asks, env=environ, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == got
