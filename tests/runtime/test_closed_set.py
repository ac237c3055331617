"""Closed sets: every reply is in the set, and files with replies are checked."""

import dataclasses
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgechat.runtime import BundleError, ChatModel, DataError, DecodingOptions, UsageError
from edgechat.runtime.bundle import read_bundle, write_bundle
from edgechat.runtime.closed_set import (
    ClosedSet,
    encode_replies,
    make_closed_set,
    parse_bundle_replies,
    parse_replies,
    read_replies,
)
from edgechat.runtime.constraints import TextRules
from edgechat.runtime.scheduler import decode
from edgechat.runtime.text import EOS, to_nfc

from .table_model import TableBackend, random_table, reference_hypothesis, token_ids

V, SOURCE = 9, (5, 6)
IDS = st.lists(st.integers(5, V - 1), min_size=1, max_size=4).map(tuple)


def said(table, closed: ClosedSet, options: DecodingOptions, max_length: int = 50):
    rules = TextRules(allow_rule=closed, max_length=closed.max_length)
    (search,) = decode(
        TableBackend(table, V), [list(SOURCE)], options, max_length=max_length, text_rules=rules
    )
    assert search.done
    return search.hypotheses()


def test_a_node_allows_the_next_ids_of_the_replies_in_it():
    closed = ClosedSet([(5, 6), (8,), (5, 7), (5, 7, 5), (8,)])
    assert (len(closed), closed.max_length) == (4, 4)
    root = closed.start
    assert closed.allowed(root, 9) == [5, 8]
    assert closed.allowed(closed.after(root, 8), 9) == [EOS]
    five = closed.after(root, 5)
    assert closed.allowed(five, 9) == [6, 7]
    assert closed.allowed(closed.after(five, 7), 9) == [EOS, 5]


@given(replies=st.lists(IDS, min_size=1, max_size=200))
@settings(max_examples=50)
def test_the_paths_of_the_trie_are_the_replies(replies):
    closed = ClosedSet(replies)
    found, nodes = set(), [((), closed.start)]
    while nodes:
        ids, node = nodes.pop()
        for id in closed.allowed(node, 9):
            if id == EOS:
                found.add(ids)
            else:
                nodes.append(((*ids, id), closed.after(node, id)))
    assert found == set(replies)


@given(
    seed=st.integers(0, 10_000),
    replies=st.lists(IDS, min_size=1, max_size=30),
    normalize=st.sampled_from(["none", "average", "gnmt"]),
)
@settings(max_examples=60)
def test_a_beam_as_wide_as_the_set_ranks_it_as_scoring_each_reply_does(seed, replies, normalize):
    options = DecodingOptions(beam=64, n_best=64, normalize=normalize)
    table = random_table(seed, V)
    expected = [reference_hypothesis(table, SOURCE, ids, options, finished=True)[1] for ids in set(replies)]
    expected.sort(key=lambda h: -h.score)
    found = said(table, ClosedSet(replies), options)
    assert token_ids(found) == token_ids(expected)
    assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-6)


@given(
    seed=st.integers(0, 10_000),
    replies=st.lists(IDS, min_size=1, max_size=30),
    beam=st.integers(1, 4),
    how=st.sampled_from([{}, {"sample": True, "seed": 3}, {"stop": "first"}, {"repetition_penalty": 2.0}]),
)
@settings(max_examples=60)
def test_every_search_ends_with_a_reply_of_the_set(seed, replies, beam, how):
    for h in said(random_table(seed, V), ClosedSet(replies), DecodingOptions(beam=beam, **how)):
        assert h.finished
        assert h.tokens in replies


# --- files ----------------------------------------------------------------------------------------


def test_what_is_written_is_read():
    replies = ("LIGHT ON hall", 'é🍵\n"x"', "two  spaces")
    assert parse_replies(encode_replies(replies)) == replies


WRONG = [
    (b"{}", "must be a list of 1 to 100,000 texts"),
    (b"[]", "must be a list of 1 to 100,000 texts"),
    (b'"on"', "must be a list of 1 to 100,000 texts"),
    (b'["on", 7]', "reply 2 must be text of 1 to 10,000 characters"),
    (b'["on", ""]', "reply 2 must be text of 1 to 10,000 characters"),
    (b'["on", {"a": 1, "a": 2}]', "cannot be read: it has a duplicate name"),
    (b'["on", null]', "reply 2 must be text of 1 to 10,000 characters"),
    (b'["\\ud800"]', "reply 1 has a lone surrogate, so it is not valid Unicode"),
    (json.dumps(["x" * 10_001]).encode(), "reply 1 must be text of 1 to 10,000 characters"),
    (json.dumps(["x"] * 100_001).encode(), "must be a list of 1 to 100,000 texts"),
    (b"[", "cannot be read: it is not JSON"),
    (b"\xff", "cannot be read: it is not UTF-8"),
    (b"[" * 100_000, "cannot be read: its values are nested too deeply"),
]


@pytest.mark.parametrize(("raw", "said"), WRONG, ids=lambda value: str(value)[:20])
def test_a_replies_file_that_is_not_a_list_of_texts_is_refused_by_name(raw, said, tmp_path):
    with pytest.raises(BundleError, match=rf"^replies\.json: {said}"):
        parse_bundle_replies(raw)
    path = tmp_path / "mine.json"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=f"mine.json: {said}"):
        read_replies(path)


def test_a_users_file_may_have_one_reply_per_line(tmp_path):
    path = tmp_path / "replies.txt"
    path.write_bytes("LIGHT ON\r\n\n  \r\nLIGHT\u2028OFF\n".encode())
    assert read_replies(path) == ("LIGHT ON", "LIGHT\u2028OFF")
    path.write_bytes(b"\xef\xbb\xbfLIGHT ON\r\nLIGHT OFF\r\n")  # a byte order mark
    assert read_replies(path) == ("LIGHT ON", "LIGHT OFF")
    for empty in (b"", b"\n \n", b"\xef\xbb\xbf\n"):
        path.write_bytes(empty)
        with pytest.raises(UsageError, match=r"replies.txt has no reply in it: write one per line"):
            read_replies(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        read_replies(path)
    with pytest.raises(UsageError, match=r"there is no file .*nowhere.txt"):
        read_replies(tmp_path / "nowhere.txt")


# --- on a real bundle -----------------------------------------------------------------------------

SET = ("LEFT LEFT", "RIGHT RIGHT", "JUMP", "do nothing at all", "e\u0301")
PROMPTS = ["turn left twice", "turn right twice", "jump", "how are you", "never seen", ""]


@pytest.fixture(scope="module")
def model(bundle_folder):
    with ChatModel.load(bundle_folder, device="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def closed_bundle(bundle_folder, tmp_path_factory):
    """The bundle with a closed set of replies."""
    read = read_bundle(bundle_folder)
    path = tmp_path_factory.mktemp("closed") / "bundle"
    files = {**read.files, "replies.json": encode_replies(SET)}
    write_bundle(path, read.manifest, files, replace_existing=False)
    return path


def test_a_bundle_replies_only_with_texts_of_its_set(closed_bundle, model):
    with ChatModel.load(closed_bundle, device="cpu") as closed:
        batch = closed.reply_batch(PROMPTS)
        for prompt, reply in zip(PROMPTS, batch, strict=True):
            stream = closed.stream(prompt)
            assert "".join(stream) == stream.reply.text == reply.text
            asked = model.reply(prompt, DecodingOptions(replies=SET))  # the same set, at run time
            assert (asked.text, asked.score) == (reply.text, pytest.approx(reply.score, abs=1e-4))
            assert reply.text in parse_bundle_replies(encode_replies(SET))
            assert reply.candidates[0].finished
        assert [reply.text for reply in batch[:3]] == ["LEFT LEFT", "RIGHT RIGHT", "JUMP"]
        # Another set at run time replaces it.
        assert closed.reply("jump", DecodingOptions(replies=("no",))).text == "no"


def test_options_that_allow_other_texts_do_not_go_with_a_closed_set(closed_bundle):
    given = [
        {"banned": ("x",)}, {"prefix": "x"}, {"no_repeat_ngram": 2}, {"no_copy_ngram": 2},
        {"min_length": 2}, {"max_length": 20},
    ]  # fmt: skip
    with ChatModel.load(closed_bundle, device="cpu") as closed:
        for values in given:
            (name,) = values
            for ask in (
                lambda values=values: DecodingOptions(replies=("x",), **values),
                lambda values=values: closed.reply("jump", DecodingOptions(**values)),
                lambda values=values: closed.reply_batch(["jump"], DecodingOptions(**values)),
            ):
                with pytest.raises(UsageError, match=rf"{name} cannot be used with .*: a closed set"):
                    ask()


def test_a_reply_longer_than_the_model_can_say_is_refused(model, bundle_folder, tmp_path):
    long = ("JUMP", "x1 " * 60)
    with pytest.raises(UsageError, match=r"reply 2 of the closed set, 'x1 x1 .*', has \d+ tokens"):
        model.reply("jump", DecodingOptions(replies=long))
    read = read_bundle(bundle_folder)
    files = {**read.files, "replies.json": encode_replies(long)}
    write_bundle(tmp_path / "bundle", read.manifest, files, replace_existing=False)
    with pytest.raises(BundleError, match=r"replies\.json: reply 2 of the closed set"):
        ChatModel.load(tmp_path / "bundle", device="cpu")


def test_a_damaged_set_is_refused_at_load(bundle_folder, tmp_path):
    read = read_bundle(bundle_folder)
    files = {**read.files, "replies.json": b'{"a": 1}'}
    write_bundle(tmp_path / "bundle", read.manifest, files, replace_existing=False)
    with pytest.raises(BundleError, match=r"replies\.json: must be a list"):
        ChatModel.load(tmp_path / "bundle", device="cpu")


@given(
    replies=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4).filter(str.strip), min_size=1
    )
)
@example(replies=["cafe\u0301", "cafe\u0301 au lait", "caf\u00e9"])
@example(replies=["\u0958", "\u212b", "q\u0307\u0323", "<eos>", "  a "])
@settings(max_examples=40)
def test_the_reply_is_one_of_the_options_texts(model, replies):
    """A set may be in any normal form, like file names of macOS, with whitespace around its texts; models
    learn and reply in NFC without it."""
    options = DecodingOptions(replies=replies, n_best=5)
    assert [to_nfc(text.strip()) for text in replies] == list(options.replies)
    assert dataclasses.replace(options, beam=6).replies == options.replies
    reply = model.reply("hello", options)
    assert {candidate.text for candidate in reply.candidates} <= set(options.replies)


def test_a_set_in_another_normal_form_is_still_no_longer_than_a_set_may_be():
    """In NFC, U+0958 becomes two characters."""
    assert DecodingOptions(replies=["e\u0301" * 10_000]).replies == ("\u00e9" * 10_000,)
    with pytest.raises(UsageError, match="reply 1 must be text of 1 to 10,000 characters"):
        DecodingOptions(replies=["\u0958" * 5_001])


def test_replies_must_be_a_list_of_texts():
    for value in ((), "text", ("a", 1), ("",), (" \n",)):
        with pytest.raises(UsageError, match=r"^replies: "):
            DecodingOptions(replies=value)


def test_options_with_a_set_come_back_from_json():
    options = DecodingOptions(replies=["a", "b"])
    assert DecodingOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert options.replies == ("a", "b")
    assert dataclasses.replace(options, beam=2).replies == ("a", "b")


def test_every_reply_is_tokenized_as_in_training(model):
    closed = make_closed_set(["turn left", "turn right"], model.codec)
    first = model.codec.encode("turn left")[0]
    assert closed.allowed(closed.start, 9) == [first]
