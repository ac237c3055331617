"""`edgechat chat`, and what `edgechat tui` checks before the chat opens."""

import os
import subprocess
import sys

import limits
import pytest

from edgechat.cli import tui
from edgechat.runtime import ChatModel


@pytest.fixture(scope="module")
def model(bundle_folder):
    with ChatModel.load(str(bundle_folder)) as loaded:
        yield loaded


def test_each_line_is_a_prompt_of_one_conversation_and_each_reply_a_line(invoke, bundle_folder, model):
    session = model.session()
    expected = [session.reply(prompt).text for prompt in ("hello", "and you?")]
    done = invoke("chat", bundle_folder, stdin="hello\n\nand you?\n")
    assert (done.returncode, done.stderr) == (0, "")  # no greeting in a pipe
    assert done.stdout.splitlines() == expected


def test_a_truncated_prompt_is_reported(invoke, bundle_folder):
    done = invoke("chat", bundle_folder, stdin="hello\n" + "word " * 2000 + "\nhello\n")
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr.count("only the end of a prompt was read") == 1


def test_a_reply_that_was_cut_off_is_reported(invoke, bundle_folder):
    done = invoke("chat", bundle_folder, "--max-length", 1, stdin="hello\n")
    assert done.stderr == "a reply was cut off after 1 token\n"


def test_new_starts_over_why_lists_candidates_and_quit_ends(invoke, bundle_folder, model):
    done = invoke("chat", bundle_folder, "--beam", 3, stdin="hello\n/why\n/new\n/why\nhello\n/quit\nnever\n")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0] == lines[-1]
    assert lines[1].startswith("1. ")
    assert lines[1].endswith(lines[0])
    assert 3 <= len(lines) <= 5  # the reply, up to three candidates, the reply


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_on_a_terminal_only_replies_go_to_a_redirected_stdout(bundle_folder, model):
    ours, theirs = os.openpty()
    os.write(ours, b"hello\n\x04")
    command = [sys.executable, "-m", "edgechat", "chat", str(bundle_folder)]
    done = subprocess.run(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=limits.TIMEOUT_SECONDS,
        check=True,
    )
    told = os.read(ours, 100_000)
    os.close(ours)
    os.close(theirs)
    assert done.stdout.decode() == model.reply("hello").text + "\n"
    assert f"Chatting with {bundle_folder} on cpu. Type a prompt".encode() in told
    assert b"you: " in told


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_on_a_terminal_a_closed_stdout_is_reported_before_a_prompt_is_typed(bundle_folder):
    ours, theirs = os.openpty()
    os.write(ours, b"hello\n\x04")
    chat = [sys.executable, "-m", "edgechat", "chat", str(bundle_folder)]
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *chat]
    done = subprocess.run(command, stdin=theirs, stderr=theirs, timeout=limits.TIMEOUT_SECONDS, check=False)
    told = os.read(ours, 100_000)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 1
    assert b"edgechat: stdout is closed, but the output goes there" in told
    assert b"Traceback" not in told
    assert b"you: " not in told


def test_a_byte_order_mark_is_not_part_of_the_first_line(invoke, bundle_folder):
    done = invoke("chat", bundle_folder, stdin="\ufeff/nonsense\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert "/nonsense is not a command" in done.stderr


def test_two_slashes_begin_a_prompt_and_an_unknown_command_is_reported(invoke, bundle_folder, model):
    done = invoke("chat", bundle_folder, stdin="//new\n/nonsense x\n/why x\n/help\n")
    assert done.stdout.splitlines() == [model.reply("/new").text]
    assert "/nonsense is not a command" in done.stderr
    assert "/why takes no arguments" in done.stderr
    assert "/why lists" in done.stderr


def test_a_wrong_option_is_one_sentence_before_anything_is_read(invoke, bundle_folder):
    done = invoke("chat", bundle_folder, "--beam", 0, stdin="hello\n")
    assert done.returncode == 2
    assert "beam must be a whole number" in done.sentence


def test_an_unusable_bundle_is_reported_before_the_chat_opens(invoke, bundle_folder, tmp_path):
    done = invoke("tui", bundle_folder, tmp_path / "gone")
    assert (done.returncode, done.sentence) == (
        2,
        f"there is no bundle {tmp_path / 'gone'}: give the folder or file that `edgechat export` wrote",
    )
    assert invoke("tui", bundle_folder, "--beam", 0).returncode == 2


@pytest.mark.parametrize(("platform", "quoted"), [("linux", "'my bundle'"), ("win32", '"my bundle"')])
def test_serving_runs_the_same_command_without_serve(monkeypatch, bundle_folder, platform, quoted):
    pytest.importorskip("textual_serve")
    from textual_serve import server

    served = []
    monkeypatch.setattr(
        server.Server, "serve", lambda self: served.append((self.command, self.host, self.port))
    )
    monkeypatch.setattr(sys, "argv", ["edgechat", "tui", "my bundle", "--serve", "--port", "9000"])
    monkeypatch.setattr(sys, "platform", platform)
    tui.tui([str(bundle_folder)], serve=True, port=9000, host="localhost")
    assert served == [(f"{sys.executable} -m edgechat tui {quoted} --port 9000", "localhost", 9000)]


def test_port_without_serve_is_refused(invoke, bundle_folder):
    done = invoke("tui", bundle_folder, "--port", 9000)
    assert (done.returncode, done.sentence) == (2, "--host and --port need --serve")


def test_serve_without_its_package_says_what_to_install(monkeypatch, bundle_folder, invoke):
    monkeypatch.delitem(sys.modules, "edgechat.tui.serve", raising=False)
    monkeypatch.setitem(sys.modules, "textual_serve.server", None)
    done = invoke("tui", bundle_folder, "--serve")
    assert done.sentence == "--serve needs textual-serve: pip install textual-serve"


def test_a_conversation_can_be_limited_to_a_closed_set(invoke, bundle_folder, tmp_path):
    (tmp_path / "replies.txt").write_text("yes\nno\n")
    done = invoke("chat", bundle_folder, "--replies", tmp_path / "replies.txt", stdin="hello\n/why\n")
    assert done.returncode == 0
    said, *ranked = done.stdout.splitlines()
    assert said in ("yes", "no")
    assert sorted(line.split(" ", 2)[2] for line in ranked) == ["no", "yes"]


def test_why_after_a_sampled_reply_is_about_that_reply(invoke, bundle_folder):
    drawing = ["--sample", "--temperature", 50, "--beam", 3]
    done = invoke("chat", bundle_folder, *drawing, stdin="hello\n/why\n/why\nhello\n")
    said, *ranked, again = done.stdout.splitlines()
    half = len(ranked) // 2
    assert 1 <= half <= 3  # unfinished hypotheses are not candidates
    assert ranked[:half] == ranked[half:]  # nothing is sampled again
    assert ranked[0].split(" ", 2)[2] == said
    assert again != said  # of another reply
