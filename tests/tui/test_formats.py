"""Exports of a conversation, and training on them."""

import json
from pathlib import Path

from typer.testing import CliRunner

from edgechat.cli.app import app
from edgechat.runtime.display import printable
from edgechat.train.dialogue import Tally
from edgechat.train.readers import read_file
from edgechat.tui.formats import to_json, to_jsonl, to_markdown
from edgechat.tui.values import CandidateRow, Exchange, ReplyFacts, ReplyOrigin

SAID = [
    Exchange("hello", reply=ReplyFacts("hi", made=ReplyOrigin("demo", "int8", "cpu"), ms=12.0), mark="good"),
    Exchange("lights\noff", reply=ReplyFacts("# what?"), mark="bad", answer="LIGHT OFF"),
    Exchange("broken", "failed"),
    Exchange("stop", "stopped", ReplyFacts("so f", finished=False)),
    Exchange("你好", reply=ReplyFacts("ok")),
]


def test_good_and_corrected_replies_are_targets_and_the_rest_is_context(tmp_path):
    file = tmp_path / "chat.jsonl"
    file.write_text(to_jsonl("t", SAID), encoding="utf-8")
    tally = Tally()
    (dialogue,) = read_file(file, tally, skip_bad=False)
    assert [(turn.text, turn.train) for turn in dialogue.turns] == [
        ("hello", False),
        ("hi", True),
        ("lights\noff", False),
        ("LIGHT OFF", True),
        ("你好", False),
        ("ok", False),
    ]
    assert not tally.dropped
    assert not tally.ignored_keys


def test_edgechat_train_takes_the_export(tmp_path):
    file = tmp_path / "chat.jsonl"
    lines = [
        to_jsonl("t", [Exchange(f"lamp {n}", reply=ReplyFacts("?"), answer=f"ON {n}")]) for n in range(30)
    ]
    file.write_text("".join(lines), encoding="utf-8")
    done = CliRunner().invoke(app, ["train", str(file), "--out", str(tmp_path / "run"), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "30" in next(line for line in done.output.splitlines() if line.startswith("pairs"))
    assert not Path(tmp_path / "run").exists()


def test_a_conversation_without_marks_gives_no_training_data():
    assert to_jsonl("t", SAID[2:]) == ""


def test_the_json_has_everything_including_settings():
    rows = (CandidateRow(1, -0.5, -1.0, "hi", True),)
    reply = ReplyFacts("hi", rows, made=ReplyOrigin("demo", options={"beam": 3}, seen=("a", "b", "hello")))
    values = json.loads(to_json("title", [Exchange("hello", reply=reply, mark="good")]))
    assert values["title"] == "title"
    (exchange,) = values["exchanges"]
    assert exchange["reply"]["made"]["options"] == {"beam": 3}
    assert exchange["reply"]["made"]["seen"] == ["a", "b", "hello"]
    assert exchange["reply"]["candidates"][0]["logp"] == -1.0
    assert exchange["other"] is None


def test_no_export_contains_a_local_path():
    reply = ReplyFacts("hi", made=ReplyOrigin("demo", path="/somewhere/secret/demo", fingerprint="ab12"))
    exchange = Exchange("hello", reply=reply, other=reply, mark="good")
    for write in (to_json, to_jsonl, to_markdown):
        assert "secret" not in write("title", [exchange])
    assert "ab12" in to_json("title", [exchange])


HOSTILE = "a\x1b[2J\x07\x00\x9b31m\x7f\u202eb\rc\x85d"


def test_no_export_contains_control_characters_and_the_json_is_exact():
    reply = ReplyFacts(HOSTILE, made=ReplyOrigin(HOSTILE))
    said = [Exchange(HOSTILE, reply=reply, other=reply, mark="good"), Exchange("x", answer=HOSTILE)]
    for write in (to_markdown, to_json, to_jsonl):
        text = write(HOSTILE, said)
        assert printable(text) == text
    assert "> a␛[2J␇␀\ufffd31m␡\ufffdb\n> c\ufffdd\n" in to_markdown("t", said)
    turns = json.loads(to_jsonl("t", said))["turns"]
    assert [turn["text"] for turn in turns] == [HOSTILE, HOSTILE, "x", HOSTILE]
    assert json.loads(to_json("t", said))["exchanges"][0]["reply"]["text"] == HOSTILE


def test_the_markdown_quotes_prompts_and_replies():
    text = to_markdown("my\ntitle", SAID[:2])
    assert text.splitlines() == [
        "# my title",
        "",
        "**you**",
        "",
        "> hello",
        "",
        "**bot** (demo · int8 · cpu, 12 ms, good)",
        "",
        "> hi",
        "",
        "**you**",
        "",
        "> lights",
        "> off",
        "",
        "**bot** (0 ms, bad)",
        "",
        "> # what?",
        "",
        "**should have said**",
        "",
        "> LIGHT OFF",
    ]
