"""Replaying stored replies with the same bundle and settings."""

import threading

import pytest

from edgechat.runtime import UsageError
from edgechat.tui.captions import compared_caption, describe_replay, has_same_candidates
from edgechat.tui.engine import Engine, load_model
from edgechat.tui.screens.text_dialogs import WriteDialog
from edgechat.tui.values import CandidateRow, ReplyFacts, ReplyOrigin
from edgechat.tui.widgets.chat_messages import ReplyMessage

from .conftest import TIMEOUT_SECONDS
from .fakes import FakeModel, Script, reply, table_model

TABLE = {"ab": 0.6, "cd": 0.4}
VIEWS = ("candidates", "attention", "tokens", "beam", "seen")


def rows(*texts, logp=-1.0):
    return tuple(CandidateRow(n, logp, logp, text, True) for n, text in enumerate(texts, start=1))


async def reopen(c):
    """Open the latest conversation."""
    await c.press("ctrl+l")
    await c.until(lambda: "just now" in c.drawn)
    await c.press("enter")
    await c.until(lambda: c.messages)


async def wait_for_notice(c, what):
    await c.until(lambda: any(what in " ".join(notice.split()) for notice in c.notices))


async def test_after_a_replay_a_stored_reply_shows_everything_again(chat, tmp_path):
    """The shipped demo, with sampling and with context."""
    store = tmp_path / "chats.db"
    async with chat(load_model("demo"), size=(140, 40), store=store) as c:
        c.screen.use_preset({"sample": True, "temperature": 1.5, "beam": 3})
        await c.say("hello")
        await c.say("how are you?")
        shown = {view: panel(await c.view(view)) for view in VIEWS}
        assert "▓" in "".join(shown["attention"])
    async with chat(load_model("demo"), size=(140, 40), store=store) as c:
        await reopen(c)
        messages = c.messages
        for view in ("attention", "beam"):
            assert "f12 replays the reply" in " ".join((await c.view(view)).split())
        await c.press("f12")
        await wait_for_notice(c, "Replayed: the same reply, token by token; log-probabilities equal")
        c.app.clear_notifications()
        await c.pilot.pause()
        for view in VIEWS:
            assert panel(await c.view(view)) == shown[view], view
        assert c.messages == messages


def panel(drawn):
    """The rows of the inspector, on the right above the prompt."""
    return [row[78:] for row in drawn.splitlines()[:-5]]


async def test_a_reply_is_replayed_with_the_settings_it_was_made_with(chat):
    async with chat(table_model(TABLE), size=(140, 40)) as c:
        c.screen.use_preset({"beam": 2})
        await c.say("hi")
        c.screen.use_preset({})
        c.screen.transcript.drop_traces(1)
        assert "f12 replays" in " ".join((await c.view("attention")).split())
        await c.press("f12")
        await wait_for_notice(c, "Replayed: the same reply, token by token")
        assert "█100" in c.drawn
        assert c.messages == ["you: hi", "bot: ab"]
        assert "beam 2" in await c.view("meter")


async def test_an_earlier_exchange_is_replayed_with_its_own_context(chat):
    model = FakeModel(turns=3)
    async with chat(model) as c:
        for prompt in ("one", "two", "three"):
            await c.say(prompt)
        await c.press("ctrl+up", "f12")
        await wait_for_notice(c, "Replayed")
        assert model.received_turns[-1] == ["one", "fine", "two"]


async def test_a_replay_that_differs_says_so_and_changes_nothing(chat):
    model = table_model(TABLE)
    async with chat(model, size=(140, 40)) as c:
        await c.say("hi")
        c.screen.transcript.drop_traces(1)
        model.backend._replies = table_model({"xy": 1.0}).backend._replies
        await c.press("f12")
        await wait_for_notice(c, "the reply differs")
        assert c.messages == ["you: hi", "bot: ab"]
        assert "f12 replays" in " ".join((await c.view("attention")).split())


async def save_with_other_bundle(chat, store, maker, other):
    """Save a conversation with `maker` as the bundle `other1`. The first bundle is `other`."""
    async with chat(other, maker, store=store) as c:
        await c.press("ctrl+b", "down", "enter")
        await c.until(lambda: "other1 · int8" in c.drawn)
        await c.say("hello")


async def test_a_replay_opens_the_bundle_that_made_the_reply_but_does_not_switch_to_it(chat, tmp_path):
    store, maker, other = tmp_path / "chats.db", FakeModel(weights="a"), FakeModel(weights="b")
    await save_with_other_bundle(chat, store, maker, other)
    async with chat(other, store=store) as c:
        c.models["other1"] = maker
        await reopen(c)
        await c.press("f12")
        await wait_for_notice(c, "Opening other1 to replay the reply")
        await wait_for_notice(c, "Replayed: the same reply")
        assert maker.received_turns[-1] == ["hello"]
        assert c.screen.bundles.current == "demo"


@pytest.mark.parametrize(
    ("there", "refused"),
    [
        (FakeModel(weights="c"), "the bundle at other1 has changed since it made the reply"),
        (UsageError("there is no bundle other1"), "there is no bundle other1"),
    ],
)
async def test_a_reply_of_a_changed_or_missing_bundle_is_not_replayed(chat, tmp_path, there, refused):
    store, maker, other = tmp_path / "chats.db", FakeModel(weights="a"), FakeModel(weights="b")
    await save_with_other_bundle(chat, store, maker, other)

    async with chat(other, store=store) as c:
        c.models["other1"] = there
        await reopen(c)
        for _ in range(2):  # it is open by then, or asked for again
            c.app.clear_notifications()
            await c.press("f12")
            await wait_for_notice(c, f"The reply cannot be replayed: {refused}")
            assert c.screen.prompt.ready
        assert c.messages == ["you: hello", "bot: fine"]


async def test_a_bundle_that_fails_while_a_replay_waits_for_it_leaves_the_other_current(chat, tmp_path):
    store, maker, other = tmp_path / "chats.db", FakeModel(weights="a"), FakeModel(weights="b")
    await save_with_other_bundle(chat, store, maker, other)
    gate = threading.Event()

    def load_again():
        gate.wait(TIMEOUT_SECONDS)
        raise UsageError("there is no bundle other1")

    async with chat(other, store=store) as c:
        c.models["other1"] = load_again
        await reopen(c)
        await c.press("f12")
        await wait_for_notice(c, "Opening other1 to replay the reply")
        c.screen.switch_to_bundle("other1")
        assert c.screen.activity() == "loading"
        gate.set()
        await wait_for_notice(c, "The reply cannot be replayed: there is no bundle other1")
        assert c.screen.bundles.current == "demo"
        assert c.screen.prompt.ready


async def test_a_replay_can_be_stopped(chat):
    model = FakeModel(Script(), Script(waits_for_cancel=True))
    async with chat(model) as c:
        await c.say("hello")
        await c.press("f12")
        await c.until(lambda: "replaying" in c.drawn)
        await c.press("escape")
        assert model.streams[-1].cancelled.is_set()
        assert c.messages == ["you: hello", "bot: fine"]
        assert c.screen.prompt.ready


async def test_a_reply_that_was_stopped_is_replayed_to_its_end(chat):
    model = FakeModel(Script([("so ", "f")], waits_for_cancel=True), Script(end=reply("so long")))
    async with chat(model) as c:
        await c.say("hello", wait=False)
        await c.until(lambda: "so f" in c.messages[-1])
        await c.press("escape", "f12")
        await wait_for_notice(c, "without the stop, the reply is: so long")
        assert c.messages[-1] == "bot: so f\n■ stopped"


def test_the_result_of_a_replay_is_described_exactly():
    made = ReplyFacts("a", rows("a", "b"))
    assert describe_replay(made, made).endswith("log-probabilities equal")
    assert describe_replay(made, ReplyFacts("a", rows("a", "b", logp=-1.25))).endswith("equal within 0.2")
    other = ReplyFacts("a", rows("a", "c"))
    assert "the other candidates differ" in describe_replay(made, other)
    assert has_same_candidates(made, made)
    assert not has_same_candidates(made, other)


def test_a_bundle_is_identified_by_its_contents_and_absolute_path(tmp_path):
    same, again, other = (Engine(FakeModel(weights=weights), "demo").facts.fingerprint for weights in "aab")
    assert same == again != other
    precision = Engine(FakeModel(weights="a", precision="fp32"), "demo").facts.fingerprint
    assert precision != same
    (tmp_path / "x").mkdir()
    assert Engine(FakeModel(), "demo", str(tmp_path / "x" / "..")).facts.path == str(tmp_path)
    assert Engine(FakeModel(), "demo", "demo").facts.path == "demo"  # the shipped one has no place


async def test_the_second_reply_of_a_comparison_can_be_selected_copied_and_replayed(chat, tmp_path):
    store = tmp_path / "chats.db"
    models = table_model(TABLE), table_model({"xy": 0.7, "ab": 0.3})
    async with chat(*models, size=(140, 40), store=store) as c:
        await c.press("f8", "enter")
        await c.say("hi")
        first = panel(await c.view("beam"))
        await c.press("alt+o")
        second = panel(await c.view("beam"))
        assert first != second
        await c.view("candidates")
        assert [row[-1] for row in c.candidates][:2] == ["xy", "ab"]
        c.screen.inspector.candidates.focus()
        await c.press("down", "enter", "ctrl+y")
        first = "The conversation continues with the first bundle's reply: select it with alt+o"
        assert c.notices[0] == first
        assert c.app.clipboard == "xy"
        assert c.chat.transcript.turns("and?") == ["hi", "ab", "and?"]
        await c.press("alt+o")
        assert [row[-1] for row in c.candidates][:2] == ["ab", "cd"]
        await c.pilot.click(c.chat.query(ReplyMessage)[1])
        assert [row[-1] for row in c.candidates][:2] == ["xy", "ab"]
    async with chat(*models, size=(140, 40), store=store) as c:
        await reopen(c)
        await c.press("alt+o", "f12")
        await wait_for_notice(c, "Replayed: the same reply, token by token")
        c.app.clear_notifications()
        await c.pilot.pause()
        assert panel(await c.view("beam")) == second
        await c.press("alt+o")
        assert "f12 replays the reply" in " ".join((await c.view("beam")).split())


@pytest.mark.parametrize(("key", "mark"), [("ctrl+g", "good"), ("alt+d", "bad"), ("f10", None)])
async def test_only_the_first_reply_of_a_comparison_can_be_marked(chat, key, mark):
    async with chat(FakeModel(), FakeModel(), size=(140, 40)) as c:
        await c.press("f8", "enter")
        await c.say("hi")
        await c.press("alt+o", key)
        assert c.app.screen is c.chat
        assert c.chat.transcript[1].mark is None
        assert c.chat.selected_side == 1
        assert c.notices[-1].endswith("select it with alt+o")
        await c.press("alt+o", key)
        assert c.chat.transcript[1].mark == mark
        assert isinstance(c.app.screen, WriteDialog) == (key == "f10")


def test_captions_of_bundles_with_the_same_name_show_their_paths():
    def made(path, precision="int8"):
        return ReplyFacts("hi", ms=12.4, made=ReplyOrigin("demo", precision, "cpu", path=path))

    assert compared_caption(made("old/demo"), None) == "demo · int8 · cpu · 12 ms"
    assert compared_caption(made("old/demo"), made("new/demo")) == "old/demo · int8 · cpu · 12 ms"
    assert compared_caption(made("new/demo"), made("old/demo")) == "new/demo · int8 · cpu · 12 ms"
    assert compared_caption(made("old/demo"), made("new/demo", "fp32")) == "demo · int8 · cpu · 12 ms"
    assert compared_caption(made(""), made("")) == "demo · int8 · cpu · 12 ms"
