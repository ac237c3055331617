"""The bundles of a window."""

import os
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from edgechat.runtime import BundleError
from edgechat.runtime.bundle import MANIFEST_FILE, find_bundle
from edgechat.tui import ChatApp, engine
from edgechat.tui.bundles import Bundles
from edgechat.tui.engine import list_bundles
from edgechat.tui.screens.dialog import SEARCH_GROUP

from .conftest import Chat
from .fakes import FakeModel, Script, reply


async def test_a_bundle_that_is_open_under_another_path_is_listed_once(tmp_path, monkeypatch):
    """As in the repository, where the demo is in a folder below."""
    demo = find_bundle("demo")
    (tmp_path / "models").symlink_to(demo.parent, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert [choice.path for choice in list_bundles(Path())] == [str(Path("models", "demo"))]
    bundles = Bundles(["demo"])
    bundles.finish_loading("demo", FakeModel())
    assert [choice.path for choice in await bundles.choices()] == ["demo"]


async def test_enter_right_after_an_arrow_chooses_the_highlighted_row(chat):
    async with chat(FakeModel(), FakeModel()) as c:
        await c.press("ctrl+b")
        await c.until(lambda: "other1" in c.drawn)
        await c.type_fast("", "down", "enter")
        await c.until(lambda: c.app.screen is c.chat and c.chat.bundles.current == "other1")


async def test_enter_after_fast_typing_opens_the_typed_path(chat, tmp_path):
    place = bundle_at(tmp_path / "unknown")
    async with chat(FakeModel(), FakeModel()) as c:
        await c.press("f8")
        await c.type_fast(str(place), "enter")
        await c.until(lambda: c.notices)
        assert str(place) in c.notices[-1]  # the test's `load` does not know it


@pytest.mark.parametrize("key", ["ctrl+b", "f8"])
async def test_a_path_without_a_bundle_is_refused_below_the_field_and_can_be_corrected(chat, tmp_path, key):
    bundle_at(tmp_path / "run").joinpath(MANIFEST_FILE).rename(tmp_path / "run" / "run.json")
    (tmp_path / "notes.txt").write_text("not a bundle")
    async with exported(tmp_path) as (c, _):
        await c.press(key)
        for name, why in (
            ("gone", "there is no bundle"),
            ("notes.txt", "is not a bundle"),
            ("run", "is a run, not a bundle"),
        ):
            field = c.app.screen.query_one(Input)
            field.value = str(tmp_path / name)
            await c.type_fast("", "enter")
            await c.until(lambda why=why: why in c.words)
            assert field.value == str(tmp_path / name)
            assert field.has_focus
            error = c.app.screen.query_one("#wrong")
            assert field.region.bottom == error.region.y
            await c.press("x")
            assert not error.display
        assert c.notices == []
        field.value = str(bundle_at(tmp_path / "there"))
        await c.type_fast("", "enter")
        await c.until(lambda: c.app.screen is c.chat)


@pytest.mark.parametrize("current", [".", "elsewhere"], ids=["home", "elsewhere"])
async def test_a_folder_that_is_typed_lists_its_bundles(tmp_path, monkeypatch, current):
    monkeypatch.setenv("HOME", str(tmp_path))
    bundle_at(tmp_path / "bundles" / "lights")
    bundle_at(tmp_path / "demo")
    (tmp_path / "packed.edgechat").write_bytes(b"PK")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / current)
    async with exported(tmp_path / "elsewhere") as (c, _):
        await c.press("ctrl+b")

        async def listed(typed):
            c.app.screen.query_one(Input).value = typed
            await c.pilot.pause()
            await c.until(lambda: not [w for w in c.app.workers if w.group == SEARCH_GROUP])
            options = c.app.screen.query_one(OptionList)
            rows = [options.get_option_at_index(n).prompt.plain for n in range(options.option_count)]
            return [row.split("\n  ")[0] for row in rows]

        assert await listed("~/") == ["mine", "lights", "demo", "packed"]
        assert await listed("~") == ["mine", "lights", "demo", "packed"]
        assert await listed("~/bun") == ["lights"]
        assert await listed("~/bundles/") == ["lights"]
        assert await listed(f"{tmp_path}/d") == ["demo"]
        assert await listed("~/bundles/lights") == ["lights"]
        assert await listed("~/nothing/") == []
        there = ["mine"] if current == "elsewhere" else ["demo", "lights", "mine", "packed"]
        assert sorted(await listed("./")) == there
        assert await listed("./l") == []
        assert await listed(f".//../{Path.cwd().name}/") == await listed("./")
        assert await listed(f"{tmp_path}//elsewhere/mi") == ["mine"]


@asynccontextmanager
async def exported(folder, *more):
    """A chat with the bundle `mine` in this folder. The text of its manifest is the reply of its model."""

    def load(path):
        text = (Path(path) / MANIFEST_FILE).read_text()
        if text == "damaged":
            raise BundleError(f"{path} is damaged")
        return FakeModel(Script(end=reply(text)), weights=text[0])

    mine = folder / "mine"
    mine.mkdir()
    (mine / MANIFEST_FILE).write_text("a first")
    app = ChatApp(load, [str(mine), *more])
    async with app.run_test(size=(100, 30)) as pilot:
        c = Chat(app, pilot)
        await c.until(lambda: c.screen.prompt.ready and not c.screen.bundles.loading)
        yield c, mine


async def choose(c, path, key="ctrl+b"):
    await c.press(key)
    await c.type_fast(str(path), "enter")
    await c.until(lambda: c.app.screen is c.chat)


async def test_a_bundle_that_was_exported_again_is_reloaded_when_it_is_chosen(chat, tmp_path):
    async with exported(tmp_path) as (c, mine):
        await c.say("one")
        await choose(c, mine)
        assert c.notices == []  # it is the same
        (mine / MANIFEST_FILE).write_text("b second")
        await choose(c, mine)
        await c.until(lambda: c.notices == ["mine has changed and is loaded again"])
        await c.until(lambda: c.screen.prompt.ready)
        await c.say("two")
        assert c.messages == ["you: one", "bot: a first", "you: two", "bot: b second"]
        assert [choice.name for choice in await c.screen.bundles.choices()].count("mine") == 1


async def test_another_spelling_of_a_path_is_the_same_bundle(chat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with exported(tmp_path) as (c, mine):
        for path in ("mine", "./mine/", f"{tmp_path}/../{tmp_path.name}/mine"):
            await choose(c, path)
            await choose(c, path, "f8")
            assert c.screen.bundles.current == str(mine)
            assert c.screen.bundles.second is None
        assert [choice.path for choice in await c.screen.bundles.choices()] == [str(mine)]


async def test_a_bundle_that_became_damaged_stays_open_as_it_was(chat, tmp_path):
    async with exported(tmp_path) as (c, mine):
        (mine / MANIFEST_FILE).write_text("damaged")
        await choose(c, mine)
        await c.until(lambda: f"{mine} is damaged. The bundle that was open stays in use" in c.notices)
        assert c.screen.prompt.ready
        await c.say("hello")
        assert c.messages == ["you: hello", "bot: a first"]


async def test_a_second_bundle_that_became_damaged_stays_open_as_it_was(chat, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / MANIFEST_FILE).write_text("c third")
    async with exported(tmp_path, str(other)) as (c, mine):
        (other / MANIFEST_FILE).write_text("damaged")
        await choose(c, other, "f8")
        await c.until(lambda: f"{other} is damaged. The bundle that was open stays in use" in c.notices)
        assert (c.screen.bundles.current, c.screen.bundles.second) == (str(mine), str(other))


async def test_other_files_are_not_listed_and_the_current_bundle_is_not_compared_with_itself(
    chat, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Makefile").write_text("all:")
    async with exported(tmp_path) as (c, _):
        await c.press("ctrl+b", *"Makefile")
        assert not c.app.screen.query_one(OptionList).option_count
        await c.press("escape")
        await choose(c, "./mine", "f8")
        assert c.notices == ["This is the current bundle: choose another one to compare with"]


async def test_the_chat_works_after_the_current_folder_was_deleted(chat, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    async with chat(FakeModel()) as c:
        await c.say("hello")
        await c.press("ctrl+b")
        await c.until(lambda: c.app.screen is not c.chat)
        await c.press("escape", "ctrl+s")
        await c.until(lambda: c.app.screen is not c.chat)
        await c.press("escape")
        assert c.messages == ["you: hello", "bot: fine"]


async def test_a_second_bundle_that_changed_is_reloaded(chat, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / MANIFEST_FILE).write_text("c third")
    async with exported(tmp_path, str(other)) as (c, _):
        (other / MANIFEST_FILE).write_text("d fourth")
        await choose(c, other, "f8")
        await c.until(lambda: c.notices and not c.screen.bundles.loading)
        await c.say("hello")
        assert "d fourth" in c.messages[-1]


async def test_a_replay_reopens_a_bundle_that_changed_back(chat, tmp_path):
    async with exported(tmp_path) as (c, mine):
        await c.say("hello")
        for text in ("b second", "a first"):
            (mine / MANIFEST_FILE).write_text(text)
            if text == "b second":
                await choose(c, mine)
                await c.until(lambda: c.notices and c.screen.prompt.ready)
        await c.press("f12")
        await c.until(lambda: any("the same reply, token by token" in notice for notice in c.notices))


async def test_a_manifest_that_became_a_named_pipe_does_not_block(chat, tmp_path):
    async with exported(tmp_path) as (c, mine):
        (mine / MANIFEST_FILE).unlink()
        os.mkfifo(mine / MANIFEST_FILE)
        await choose(c, mine)
        await c.say("hello")
        assert c.messages == ["you: hello", "bot: a first"]


def bundle_at(place):
    place.mkdir(parents=True)
    (place / MANIFEST_FILE).write_text("a there")
    return place


async def chosen(c, typed, *keys):
    await c.press("ctrl+b")
    await c.type_fast(typed, *keys, "enter")
    await c.until(lambda: c.app.screen is c.chat)
    return c.chat.bundles.current


async def test_an_exact_path_comes_before_longer_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle_at(tmp_path / "bundles" / "mine2")
    async with exported(tmp_path, str(Path("bundles", "mine2"))) as (c, _):
        assert await chosen(c, "bundles/mine") == "bundles/mine2"
        bundle_at(tmp_path / "bundles" / "mine")
        assert await chosen(c, "bundles/mine") == "bundles/mine"
        assert await chosen(c, "bundles/mine", "down") == "bundles/mine2"
        await c.press("ctrl+b", *"x" * 300, "enter")
        await c.until(lambda: "cannot be opened: File name too long" in c.words)


async def test_a_path_below_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    place = bundle_at(tmp_path / "bundles" / "x")
    (tmp_path / "a").mkdir()
    async with exported(tmp_path / "a") as (c, _):
        assert await chosen(c, "~/bundles/x") == str(place)
        await c.press("ctrl+b", *"~nobody-of-this-name/x", "enter")
        await c.until(lambda: "there is no bundle ~nobody-of-this-name/x" in c.words)


async def test_bundles_are_searched_in_another_thread(chat, monkeypatch):
    threads = []
    monkeypatch.setattr(
        "edgechat.tui.bundles.list_bundles", lambda folder: threads.append(threading.current_thread()) or []
    )
    async with chat(FakeModel(), FakeModel()) as c:
        for key in ("ctrl+b", "f8"):
            await c.press(key)
            await c.until(lambda: "other1" in c.drawn)
            await c.press("escape")
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_symlinks_that_form_a_loop_are_listed_and_cannot_be_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.edgechat").symlink_to("a.edgechat")
    async with exported(tmp_path) as (c, mine):
        await c.press("ctrl+b")
        await c.until(lambda: "a.edgechat" in c.drawn)
        await c.type_fast("a.edgechat", "enter")
        await c.until(lambda: c.app.screen is c.chat and c.notices)
        assert "a.edgechat" in c.notices[-1]
        assert c.screen.bundles.current == str(mine)


async def test_the_list_resolves_paths_in_a_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with exported(tmp_path) as (c, _):
        threads = []
        resolve = engine._resolve
        monkeypatch.setattr(
            engine, "_resolve", lambda path: threads.append(threading.current_thread()) or resolve(path)
        )
        await c.press("ctrl+b")
        await c.until(lambda: "mine" in c.drawn)
        await c.press(*"./m")
        await c.until(lambda: not [w for w in c.app.workers if w.group == SEARCH_GROUP])
        assert threads
        assert threading.main_thread() not in threads
