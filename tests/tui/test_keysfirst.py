"""No garbage is collected while a reply is decoded, and it is again once the last one is over."""

import gc

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
