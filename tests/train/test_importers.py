import importlib.util
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edgechat.runtime.errors import DataError, EdgeChatError, UsageError
from edgechat.train import importers
from edgechat.train.corpus import open_corpus
from edgechat.train.importers import chatterbot, chitchat


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (chatterbot, chitchat):
        monkeypatch.setattr(module, "package_folder", lambda *_: tmp_path)
    return tmp_path


def read_chatterbot(folder: Path, yaml: str) -> tuple[list[list[tuple[str, bool]]], Counter[str]]:
    (folder / "data/english").mkdir(parents=True)
    (folder / "data/english/a.yml").write_text(yaml, "utf-8")
    dropped: Counter[str] = Counter()
    dialogues = [[(t.text, t.train) for t in d.turns] for d in chatterbot.Chatterbot(["english"])(dropped)]
    return dialogues, dropped


def test_english_has_each_of_its_1176_pairs_once() -> None:
    corpus = open_corpus([])
    pairs = [(a.text, b.text) for d in corpus for a, b in itertools.pairwise(d.turns) if b.train]
    assert len(pairs) == len(set(pairs)) == 1176
    assert corpus.name == "chatterbot:english"
    assert corpus.report.dropped == {"repeated pair": 1130, "conversation that is not a list of texts": 1}


def test_chatterbot_alone_is_english() -> None:
    hashes = {open_corpus([name]).read().sha256 for name in ("chatterbot", "chatterbot:english")}
    assert len(hashes) == 1


def test_no_ukrainian_turn_is_a_letter_of_a_string() -> None:
    corpus = open_corpus(["chatterbot:ukrainian"])
    assert all(len(turn.text) > 1 for dialogue in corpus for turn in dialogue.turns)
    assert corpus.report.dropped["conversation that is not a list of texts"] == 7


def test_languages_can_be_joined() -> None:
    both = open_corpus(["chatterbot:english,german"]).read()
    assert both.dialogues > open_corpus(["chatterbot:english"]).read().dialogues


@pytest.mark.parametrize("name", ["chatterbot:klingon", "chatterbot:english,klingon"])
def test_an_unknown_language_says_which_are_known(name: str) -> None:
    with pytest.raises(UsageError, match=r"no language 'klingon'; it has bengali, .*english"):
        open_corpus([name])


def test_a_repeated_pair_is_context_and_a_conversation_of_repeats_is_dropped(package: Path) -> None:
    dialogues, dropped = read_chatterbot(
        package,
        """
        conversations:
        - [a, b]
        - ["a ", b]
        - [a, b, c]
        - [x, y, a, b]
        - [lonely]
        - a string
        - [1, b]
        """,
    )
    assert dialogues == [
        [("a", True), ("b", True)],
        [("a", True), ("b", False), ("c", True)],
        [("x", True), ("y", True), ("a", True)],
    ]
    assert dropped == {
        "repeated pair": 3,
        "dialogue of fewer than two turns": 1,
        "conversation that is not a list of texts": 2,
    }


def read_chitchat(folder: Path, *conversations: str) -> tuple[list[list[str]], Counter[str]]:
    """Conversations as "A: text | A: text | B: text"."""
    content = {}
    for i, conversation in enumerate(conversations):
        messages = [message.strip().split(": ", 1) for message in conversation.split("|")]
        content[str(i)] = {"messages": [[{"sender": s, "text": t}] for s, t in messages], "ratings": {"x": 1}}
    (folder / "dataset.json").write_text(json.dumps(content, indent=1), "utf-8")
    dropped: Counter[str] = Counter()
    return [[t.text for t in d.turns] for d in chitchat.Chitchat()(dropped)], dropped


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[: text.index(',\n "1"')], "it is cut off or not a list of conversations"),
        (lambda text: text.replace('"1"', r'"a\"b"'), "it is cut off or not a list of conversations"),
        (lambda text: text.replace('"messages"', '"lines"'), "no messages of texts and senders (KeyError"),
        (lambda text: text.replace('"hi"', "1"), "no messages of texts and senders (AttributeError"),
    ],
    ids=["cut", "key", "no messages", "no text"],
)
def test_a_damaged_package_is_refused_and_no_part_of_it_learned(
    package: Path, spoil: Callable[[str], str], said: str
) -> None:
    read_chitchat(package, "A: hi | B: yes", "A: hi | B: no")
    path = package / "dataset.json"
    path.write_text(spoil(path.read_text("utf-8")), "utf-8")
    with pytest.raises(DataError) as caught:
        list(chitchat.Chitchat()(Counter()))
    assert said in str(caught.value)


def test_consecutive_messages_of_one_sender_are_one_turn(package: Path) -> None:
    dialogues, dropped = read_chitchat(package, "A: hi | A: you there?| B: yes| B: 你好 | A: fine")
    assert dialogues == [["hi you there?", "yes 你好", "fine"]]
    assert not dropped


def test_one_sided_and_spam_conversations_are_dropped(package: Path) -> None:
    spam = "A: hi | B: aaaaaaaaaa | A: what | B: ok"
    dialogues, dropped = read_chitchat(package, "A: hi | A: hello?", spam, "A: a | B: b")
    assert dialogues == [["a", "b"]]
    assert dropped == {"one-sided conversation": 1, "spam conversation": 1}


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ("see https://example.org/x", "URL"),
        ("its on Example.COM", "URL"),
        ("write to me@home", "e-mail address"),
        ("word " * 61, "more than 60 words"),
        ("noooooooooo", "letter spam"),
        ("HAhahahahahahahahaha", "letter spam"),
        ("abcdefghijklmnopqrstuvwxyz", "overlong word"),
    ],
)
def test_a_dialogue_is_cut_at_a_flawed_turn(package: Path, turn: str, reason: str) -> None:
    before, after = "A: a | B: b | A: c | B: d", "B: e | A: f | B: g"
    dialogues, dropped = read_chitchat(package, f"{before} | A: {turn} | {after}")
    assert dialogues == [["a", "b", "c", "d"], ["e", "f", "g"]]
    assert dropped == {f"turn with {reason}": 1}


def test_harmless_turns_are_not_flawed(package: Path) -> None:
    conversation = "A: hahaha, soooo good... | B: wait.what? 5@ 3 | A: 1000000000000 ________ ok | B: fill.in"
    dialogues, dropped = read_chitchat(package, conversation)
    assert len(dialogues[0]) == 4
    assert not dropped


def test_the_chitchat_package_is_read_as_documented() -> None:
    corpus = open_corpus(["chitchat"])
    report = corpus.read()
    assert (report.dialogues, report.turns) == (6596, 130_888)
    assert report.dropped["one-sided conversation"] == 3151


@pytest.mark.parametrize("name", ["chitchat", "chatterbot"])
def test_a_missing_package_says_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EdgeChatError, match=r"is not installed: pip install \S+$"):
        importers.find_importer(name)
