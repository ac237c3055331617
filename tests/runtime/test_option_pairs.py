"""Every pair of options of the search, in every mode: refused, or both work as defined."""

import asyncio
import itertools
import unicodedata
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from edgechat.runtime import ChatModel, DecodingOptions, Reply, UsageError
from edgechat.runtime.closed_set import ClosedSet, make_closed_set
from edgechat.runtime.constraints import TextRules, make_text_rules
from edgechat.runtime.ensemble import EnsembleBackend
from edgechat.runtime.scheduler import decode
from edgechat.runtime.search import BeamSearch
from edgechat.runtime.text import EOS, NEVER_GENERATED, TextCodec
from edgechat.train.tokenizer import train_tokenizer

from .table_model import (
    Ids,
    Table,
    TableBackend,
    fake_attention,
    may_begin_reply,
    may_end_reply,
    random_table,
    reference_beam_search,
    reference_hypothesis,
    token_ids,
)

#: For each option, a value that is not its default, and other options that it needs.
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "beam": (2, {}),
    "n_best": (2, {}),
    "normalize": ("average", {}),
    "length_penalty": (3.0, {}),
    "coverage_penalty": (1.0, {}),
    "repetition_penalty": (3.0, {}),
    "no_repeat_ngram": (2, {}),
    "no_copy_ngram": (2, {}),
    "banned": (("ab",), {}),
    "prefix": ("ba", {}),
    "required": (("bb",), {}),
    "replies": (("a", "b", "bab", "abab", "bb", "aab", "aba"), {}),
    "min_length": (4, {}),
    "max_length": (5, {}),
    "stop": ("first", {}),
    "groups": (2, {"beam": 4}),
    "diversity": (3.0, {"groups": 2, "beam": 4}),
    "sample": (True, {"seed": 1}),
    "temperature": (5.0, {"sample": True, "seed": 1}),
    "top_k": (2, {"sample": True, "seed": 1}),
    "top_p": (0.7, {"sample": True, "seed": 1}),
    "typical_p": (0.7, {"sample": True, "seed": 1}),
    "seed": (2, {"sample": True}),
    "alignments": (True, {}),
    "trace": (True, {}),
}
DRAWN = ("sample", "temperature", "top_k", "top_p", "typical_p", "seed")
SAID = ("banned", "prefix", "required", "no_repeat_ngram", "no_copy_ngram", "min_length", "max_length")
#: As docs/decoding.md has it: "Options that need or exclude others".
REFUSED = {
    frozenset(pair)
    for pair in (
        ("normalize", "length_penalty"),
        *itertools.product(DRAWN, ("stop", "groups", "diversity", "required")),
        *itertools.product(("groups", "diversity"), ("required",)),
        *itertools.product(("replies",), SAID),
    )
}
PAIRS = list(itertools.combinations(SETTINGS, 2))
ACCEPTED = [pair for pair in PAIRS if frozenset(pair) not in REFUSED]


def together(*names: str) -> dict[str, Any]:
    """These options with their values and what they need, in a narrow beam."""
    needed = {name: value for each in names for name, value in SETTINGS[each][1].items()}
    return {"beam": 3} | needed | {name: SETTINGS[name][0] for name in names}


def test_every_option_is_in_the_table():
    assert set(SETTINGS) == {field.name for field in fields(DecodingOptions)}


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if frozenset(pair) in REFUSED], ids=" ".join)
def test_options_that_do_not_go_together_are_refused_by_name(pair):
    with pytest.raises(UsageError) as raised:
        DecodingOptions(**together(*pair))
    named = {*together(*pair)}
    assert sum(name in str(raised.value) for name in named) >= 2


# --- the search, against independent definitions --------------------------------------------------

VOCABULARY = (b"", b"", b"", b"", b"", b"a", b"b", b"ab", b"ba")
V, SOURCE, LONGEST = len(VOCABULARY), (5, 6, 5, 8), 9
WORDS = {text: id for id, text in enumerate(VOCABULARY) if text}


def spelled(reply: str) -> Ids:
    """The ids of a reply, one per letter."""
    return tuple(WORDS[letter.encode()] for letter in reply)


def search_of(table: Table, options: DecodingOptions) -> BeamSearch:
    if options.replies:
        closed = ClosedSet(map(spelled, options.replies))
        rules = TextRules(allow_rule=closed, max_length=closed.max_length)
    else:
        rules = make_text_rules(options, VOCABULARY)
    most = options.max_length or LONGEST
    (search,) = decode(TableBackend(table, V), [list(SOURCE)], options, max_length=most, text_rules=rules)
    return search


def check_kept(table: Table, options: DecodingOptions, search: BeamSearch) -> None:
    """Check what must hold for every reply."""
    found = search.hypotheses()
    assert 1 <= len(found) <= options.n_best
    assert len(set(token_ids(found))) == len(found)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for h in found:
        assert may_begin_reply(h.tokens, SOURCE, options, VOCABULARY)
        assert not h.finished or may_end_reply(h.tokens, options, VOCABULARY)
        assert len(h.tokens) + h.finished <= (options.max_length or LONGEST)
        if options.replies:
            assert h.finished
            assert h.tokens in set(map(spelled, options.replies))
        _, expected = reference_hypothesis(table, SOURCE, h.tokens, options, finished=h.finished)
        assert h.token_logps == pytest.approx(expected.token_logps, abs=1e-6)
        assert h.logp == pytest.approx(expected.logp, abs=1e-6)
        assert h.score == pytest.approx(expected.score, abs=1e-6)
        if options.alignments:
            looked = [fake_attention(SOURCE, (*h.tokens, EOS)[:t]) for t in range(len(h.token_logps))]
            assert [list(row) for row in h.alignments] == [pytest.approx(row.tolist()) for row in looked]
        if options.top_k:
            check_among_the_likeliest(table, h.tokens, options)


def check_among_the_likeliest(table: Table, tokens: Ids, options: DecodingOptions) -> None:
    """Check that each token is one of the `top_k` likeliest allowed ones."""
    for t, id in enumerate(tokens):
        said = tokens[:t]
        closed = {r[t : t + 1] or (EOS,) for r in map(spelled, options.replies or ()) if r[:t] == said}
        allowed = [
            other
            for other in range(V)
            if other not in NEVER_GENERATED
            and (not options.replies or (other,) in closed)
            and (
                may_end_reply(said, options, VOCABULARY)
                if other == EOS
                else may_begin_reply((*said, other), SOURCE, options, VOCABULARY)
            )
        ]
        logp = table(SOURCE, said)
        penalized = {o: logp[o] * (options.repetition_penalty if o in said else 1.0) for o in allowed}
        assert id in sorted(allowed, key=lambda o: (-penalized[o], o))[: options.top_k]


def expected_of(table: Table, options: DecodingOptions) -> list[Ids] | None:
    """The replies by definition, for options that have one without a search."""
    if options.sample or options.required or options.stop == "first":
        return None
    if options.replies:
        if options.groups > 1 or options.beam < len(options.replies):
            return None
        every = (
            reference_hypothesis(table, SOURCE, spelled(r), options, finished=True)[1]
            for r in options.replies
        )
        return token_ids(sorted(every, key=lambda h: -h.score)[: options.n_best])
    return token_ids(
        reference_beam_search(table, SOURCE, V, options, options.max_length or LONGEST, VOCABULARY)
    )


def check_traced(search: BeamSearch) -> None:
    """Check that live candidates are the rows of the next step, and finished ones are the replies."""
    for step, following in itertools.pairwise(search.trace):
        live = [(*row.tokens, c.id) for row in step.rows for c in row.candidates if c.fate == "live"]
        assert sorted(live) == sorted(row.tokens for row in following.rows)
    ended = {
        row.tokens
        for step in search.trace
        for row in step.rows
        for c in row.candidates
        if c.fate == "finished"
    }
    assert {h.tokens for h in search.hypotheses() if h.finished} <= ended
    for step in search.trace:
        for c in (c for row in step.rows for c in row.candidates):
            assert (c.rule is not None) == (c.fate == "banned")


#: Tables with long, medium and short replies.
TABLES = [random_table(seed, V, ending=ending) for seed in range(24) for ending in (-3.0, -1.0, 1.0)]


def sight(table: Table, options: DecodingOptions) -> Any:
    """Everything that a caller can see of a search."""
    search = search_of(table, options)
    shown = [
        (h.tokens, h.score, h.finished, h.alignments if options.alignments else ())
        for h in search.hypotheses()
    ]
    return shown, search.trace


@pytest.mark.parametrize("pair", ACCEPTED, ids=" ".join)
def test_two_options_that_go_together_both_do_what_they_are_defined_to_do(pair):
    options = DecodingOptions(**together(*pair))
    for table in TABLES[:3]:
        search = search_of(table, options)
        check_kept(table, options, search)
        expected = expected_of(table, options)
        assert expected is None or token_ids(search.hypotheses()) == expected
        assert bool(search.trace) == options.trace
        if options.trace:
            check_traced(search)


@pytest.mark.parametrize("pair", ACCEPTED, ids=" ".join)
def test_neither_of_two_options_is_ignored(pair):
    options = DecodingOptions(**together(*pair))
    for one, other in (pair, pair[::-1]):
        if other in SETTINGS[one][1]:
            continue  # without it, there is no `one`
        base = {} if other == "sample" else SETTINGS[other][1]
        without = DecodingOptions(**{"beam": 3, **base, **SETTINGS[one][1], one: SETTINGS[one][0]})
        changed = any(sight(table, options) != sight(table, without) for table in TABLES)
        assert changed, f"{other} does nothing"


# --- every way to reply ---------------------------------------------------------------------------

CODEC = TextCodec(
    train_tokenizer(["he said hello", "hello to the hen"] * 3, 300), max_source=20, max_target=10
)
#: The same options, with texts for the real tokenizer.
SPOKEN = {
    "banned": ("l",),
    "prefix": "he",
    "required": ("to",),
    "replies": ("hello", "he said", "the hen", "to", "said hello"),
}
PROMPTS = ["hello", "", "the hen said hello to the hen"]


def talker(*, closed: tuple[str, ...] = (), models: int = 1) -> ChatModel:
    size = CODEC.vocab_size
    backends = [TableBackend(random_table(n, size, ending=4.0), size) for n in range(models)]
    backend = EnsembleBackend(backends) if models > 1 else backends[0]
    own = make_closed_set(closed, CODEC) if closed else None
    return ChatModel(backend, CODEC, DecodingOptions(), device="cpu", closed_set=own)


def spoken(*names: str) -> DecodingOptions:
    return DecodingOptions(**together(*names) | {n: SPOKEN[n] for n in names if n in SPOKEN})


def shown(reply: Reply) -> Any:
    """What must be the same in every way to reply: everything but the time."""
    return reply.text, reply.candidates, reply.trace, reply.truncated


def streamed(model: ChatModel, prompt: str, options: DecodingOptions) -> Reply:
    stream = model.stream(prompt, options)
    assert "".join(stream) == stream.reply.text
    return stream.reply


def in_a_batch(model: ChatModel, prompt: str, options: DecodingOptions) -> Reply:
    return model.reply_batch([*PROMPTS[1:], prompt], options)[-1]


WAYS: dict[str, Callable[[ChatModel, str, DecodingOptions], Reply]] = {
    "stream": streamed,
    "batch": in_a_batch,
    "session": lambda model, prompt, options: model.session().reply(prompt, options),
    "coroutine": lambda model, prompt, options: asyncio.run(model.areply(prompt, options)),
}


@pytest.mark.parametrize(("models", "ways"), [(1, list(WAYS)), (2, ["stream", "batch"])])
def test_any_two_options_give_the_same_reply_in_every_way_to_reply(models, ways):
    model = talker(models=models)
    for pair in ACCEPTED:
        options = spoken(*pair)
        reply = model.reply(PROMPTS[0], options)
        check_said(reply, options)
        for way in ways:
            assert shown(WAYS[way](model, PROMPTS[0], options)) == shown(reply), (pair, way)


def check_said(reply: Reply, options: DecodingOptions) -> None:
    """Check the rules in the text of every candidate."""
    assert 1 <= len(reply.candidates) <= options.n_best
    assert len({candidate.text for candidate in reply.candidates}) == len(reply.candidates)
    for candidate in reply.candidates:
        assert not any(text in candidate.text for text in options.banned)
        assert not options.replies or candidate.text in options.replies
        if candidate.finished:
            assert candidate.text.startswith(options.prefix or "")
            assert all(text in candidate.text for text in options.required)
            assert len(candidate.tokens) >= options.min_length
        assert len(candidate.tokens) + candidate.finished <= (options.max_length or CODEC.max_target)
        assert (candidate.alignments is not None) == options.alignments
    assert (reply.trace is not None) == options.trace


def test_with_a_closed_set_in_the_bundle_every_option_is_refused_or_gives_a_reply_of_it():
    model = talker(closed=SPOKEN["replies"])
    for names in (*itertools.combinations(SETTINGS, 1), *ACCEPTED):
        options = spoken(*names)
        if set(names) & set(SAID):
            with pytest.raises(UsageError, match="cannot be used with the closed set of this bundle"):
                model.reply("hello", options)
            continue
        for candidate in model.reply("hello", options).candidates:
            assert candidate.finished
            assert candidate.text in SPOKEN["replies"]


# --- impossible options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"banned": ("he",), "required": ("hello",)}, "required 'hello' contains 'he', which is banned"),
        (
            {"banned": ("hello",), "required": ("hello",)},
            "required 'hello' contains 'hello', which is banned",
        ),
        ({"banned": ("l",), "prefix": "hello"}, "prefix contains 'l', which is banned"),
        ({"replies": ("hello",), "prefix": "the"}, "prefix cannot be used with replies"),
        ({"min_length": 10}, "min_length is 10, but replies of this model have at most 10"),
        ({"prefix": "hello " * 20}, "prefix does not fit into a reply"),
        ({"required": ("hello " * 20,)}, "required texts do not fit into a reply"),
        ({"replies": ("hello " * 20,)}, "reply 1 of the closed set.* tokens"),
    ],
)
def test_impossible_options_are_refused_before_the_search(values, said):
    with pytest.raises(UsageError, match=said):
        talker().reply("hello", DecodingOptions(**values))


@pytest.mark.parametrize("text", ["🍵", "<eos>", "\x00", "e\u0301", "\n", " "])
def test_any_text_can_be_forced_banned_required_and_be_the_only_reply(text):
    model, normal = talker(), unicodedata.normalize("NFC", text)
    assert model.reply("hello", DecodingOptions(prefix=text)).text.startswith(normal)
    assert normal in model.reply("hello", DecodingOptions(required=(text,))).text
    only = f"a{text}b"  # a reply of a set is trimmed
    assert model.reply("hello", DecodingOptions(replies=(only,))).text == f"a{normal}b"
    for candidate in model.reply("hello", DecodingOptions(n_best=5, banned=(text,))).candidates:
        assert normal not in candidate.text


def test_more_replies_than_there_are_give_those_that_there_are():
    model = talker()
    replies = SPOKEN["replies"]
    reply = model.reply("hello", DecodingOptions(beam=50, n_best=50, replies=replies))
    assert sorted(candidate.text for candidate in reply.candidates) == sorted(replies)


def test_the_widest_beam_and_the_longest_reply_that_may_be_asked_for_are_searched():
    options = DecodingOptions(beam=1024, n_best=1024, max_length=2, top_k=1_000_000, sample=True, seed=3)
    assert len(talker().reply("hello", options).candidates) > 20
    assert talker().reply("hello", DecodingOptions(max_length=10_000)).candidates[0].finished
