"""Keys, help, palette, layouts, and texts with control sequences."""

import re
from pathlib import Path

import pytest
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual._xterm_parser import XTermParser
from textual.command import CommandPalette
from textual.events import Paste
from textual.widgets import Input, OptionList

from edgechat.tui.key_names import parse_key, suggest_key
from edgechat.tui.keys import (
    ACTION_IDS,
    ALL_ACTIONS,
    APP_ACTIONS,
    ASK_ACTIONS,
    CANDIDATES_ACTIONS,
    CHAT_ACTIONS,
    DIALOG_ACTIONS,
    LIBRARY_ACTIONS,
    PROMPT_ACTIONS,
    VIEW_ACTIONS,
    WRITE_ACTIONS,
)
from edgechat.tui.safe_text import MAX_DRAWN_CHARACTERS, safe_content, safe_text
from edgechat.tui.settings import load_keys
from edgechat.tui.widgets import VIEWS
from edgechat.tui.widgets.footer import FittingFooter

from .fakes import FakeModel, Script, reply, table_model

HOSTILE = "[bold]x[/] [/ [@click=app.quit]y[/] \x1b[31mred\x07 \x9b2J end"
HARMLESS = "[bold]x[/] [/ [@click=app.quit]y[/] ␛[31mred␇ \ufffd2J end"


async def test_control_characters_and_markup_are_shown_as_they_are(chat):
    async with chat(
        FakeModel(Script([("", HOSTILE)], reply(HOSTILE, "[b]x[/b] [/ \x9b"))), size=(140, 40)
    ) as c:
        await c.say(HOSTILE)
        assert c.messages == [f"you: {HARMLESS}", f"bot: {HARMLESS}"]
        assert "[b]x[/b] [/ \ufffd" in c.drawn
        assert f"bot   {HARMLESS}" in c.drawn
        assert not any(ord(character) in {0x07, 0x1B, 0x9B} for character in c.drawn)


async def test_control_characters_pasted_into_the_palette_are_shown_as_they_are(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        await c.press("ctrl+p")
        c.app.post_message(Paste(HOSTILE + "\u202e"))
        await c.until(lambda: c.app.screen.query_one(Input).value)
        assert c.app.screen.query_one(Input).value == HARMLESS + "\ufffd"


def test_no_text_can_reorder_the_columns_beside_it():
    assert safe_text("a\u202eb\u2066c\u2028d") == "a\ufffdb\ufffdc\nd"
    assert safe_text("שלום") == "שלום"


def test_a_very_long_text_is_drawn_in_part():
    drawn = safe_content("x" * 100_000).plain
    assert drawn == "x" * MAX_DRAWN_CHARACTERS + f" … ({100_000 - MAX_DRAWN_CHARACTERS:,} more characters)"


@pytest.mark.parametrize("size", [(80, 24), (140, 40)])
async def test_wide_and_right_to_left_characters_leave_every_row_as_wide_as_the_terminal(chat, size):
    text = "你好，世界！很高兴见到你 🙂 שלום עולם e\u0301 👩‍👩‍👧 " * 3
    async with chat(table_model({text[:40]: 0.7, "ok": 0.3}), size=size) as c:
        await c.pilot.press("f2")
        await c.say(text)
        widths = {strip.cell_length for strip in c.strips}
        assert widths == {size[0]}


async def test_a_reply_is_copied_without_control_characters(chat):
    async with chat(FakeModel(Script(end=reply("copy \x1b[0m me")))) as c:
        await c.pilot.press("ctrl+y")
        assert c.app.clipboard == ""
        await c.say("hello")
        await c.pilot.press("ctrl+y")
        assert c.app.clipboard == "copy ␛[0m me"


async def test_actions_without_a_key_run_from_the_palette(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        for name, copied in (("Copy prompt", "hello"), ("Copy conversation", "> fine")):
            await c.press("ctrl+p")
            await c.until(lambda: isinstance(c.app.screen, CommandPalette))
            c.app.screen.query_one(Input).value = name
            await c.until(lambda name=name: c.app.screen.query_one(OptionList).option_count == 1)
            await c.press("down", "enter")
            await c.until(lambda copied=copied: copied in c.app.clipboard)


async def test_help_and_ctrl_c_name_the_current_keys_of_palette_and_quit(chat, tmp_path):
    for key, shown in (("ctrl+k", "^k"), ("", "")):
        (tmp_path / "keys.toml").write_text(f'"app.palette" = "{key}"\n"app.quit" = "{key and "f5"}"\n')
        async with chat(FakeModel(), config=tmp_path) as c:
            await c.press("ctrl+c")
            assert ["f5" in said for said in c.notices[-1:]] == [True] * bool(key)
            c.app.action_help()
            note = c.app.screen.note
            assert note.startswith(f"The command palette ({shown}) has" if key else "To change a key")


async def test_ctrl_c_without_a_selection_tells_how_to_quit(chat):
    async with chat(FakeModel()) as c:
        c.screen.prompt.insert("draft")
        await c.pilot.press("ctrl+c")
        assert c.prompt == "draft"
        assert c.app.is_running
        assert "ctrl+q" in c.notices[0]


@pytest.mark.parametrize("view", list(VIEWS))
async def test_ctrl_c_after_dragging_in_a_view_copies_nothing(chat, view):
    async with chat(table_model({"ok": 1.0}), size=(140, 40)) as c:
        await c.say("hello")
        await c.press("ctrl+y")
        await c.view(view)
        shown = c.screen.inspector.shown
        await c.pilot.mouse_down(shown, offset=(3, 1))
        await c.pilot.hover(shown, offset=(12, 3))
        await c.pilot.mouse_up(shown, offset=(12, 3))
        await c.press("ctrl+c")
        assert not c.screen.get_selected_text()
        assert c.app.clipboard == "ok"


async def test_a_message_is_selected_without_its_speaker(chat):
    async with chat(FakeModel(Script(end=reply("select me")))) as c:
        await c.say("hello")
        c.screen.query("ReplyMessage").last().text_select_all()
        await c.pilot.press("ctrl+c")
        assert c.app.clipboard == "select me"
        assert c.notices == ["The selected text is copied"]


async def test_escape_is_offered_only_while_it_does_something_and_the_footer_says_what(chat):
    async with chat(FakeModel(Script(), Script(waits_for_cancel=True))) as c:
        await c.say("earlier")
        for something, label in (
            (c.say("hello", wait=False), "Stop"),
            (c.press("f6"), "Cancel"),
            (c.press("ctrl+up"), "Latest"),
        ):
            assert not c.screen.active_bindings["escape"].enabled
            await c.until(lambda: "esc" not in c.drawn.splitlines()[-1])
            await something
            assert c.screen.active_bindings["escape"].enabled
            await c.until(lambda label=label: c.drawn.splitlines()[-1].startswith(f"esc {label} "))
            await c.press("escape")


async def test_the_footer_says_whether_f2_shows_or_hides_the_inspector(chat):
    async with chat(FakeModel()) as c:

        async def until_offered(label):
            await c.until(lambda: f" f2 {label} f3 Next view f4 Knobs " in c.drawn.splitlines()[-1])

        await until_offered("Why")
        for key, label in (("f2", "Hide"), ("f2", "Why"), ("f3", "Hide"), ("f2", "Why")):
            await c.press(key)
            await until_offered(label)
        for width, label in ((140, "Why"), (80, "Why")):  # it stays hidden
            await c.pilot.resize_terminal(width, 24)
            await until_offered(label)
    async with chat(FakeModel()) as c:
        for width, label in ((140, "Hide"), (80, "Why")):  # a wide terminal shows it
            await c.pilot.resize_terminal(width, 24)
            await until_offered(label)


async def test_every_available_action_is_in_the_palette(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        commands = {command.title: command for command in c.app.get_system_commands(c.screen)}
        ours = {action.label for action in (*APP_ACTIONS, *PROMPT_ACTIONS, *CHAT_ACTIONS)}
        nothing = {"Stop", "Other reply"}  # to stop now, nor to compare
        assert ours - {*nothing, "All"} <= commands.keys()  # this is "All"
        assert not nothing & commands.keys()
        assert not {"Maximize", "Minimize", "Keys"} & commands.keys()
        assert {"Theme", "Quit"} <= commands.keys()
        assert {f"View: {name}" for name in VIEWS} <= commands.keys()
        await commands["New"].callback()
        await c.until(lambda: c.messages == [])
        assert "Good" not in {command.title for command in c.app.get_system_commands(c.screen)}
        await c.press("ctrl+p")
        await c.until(lambda: isinstance(c.app.screen, CommandPalette))


@pytest.mark.parametrize(("size", "closing"), [((80, 24), "f1"), ((140, 40), "escape")])
async def test_help_is_about_the_focused_widget_and_can_be_closed(chat, size, closing):
    async with chat(FakeModel(), size=size) as c:
        await c.press("f1")
        await c.until(lambda: "Up on the first line" in c.drawn)
        assert "Send: send the prompt to the model" in c.drawn
        assert "Stop: stop the reply" in c.drawn  # ours are above the fold
        assert c.drawn.splitlines()[-1].startswith("esc Close")  # the footer is in view, and true
        await c.press(closing)
        assert c.app.screen is c.screen
        c.screen.show_view("attention")
        c.screen.inspector.attention.focus()
        await c.press("f1")
        await c.until(lambda: "Each row is a token of the reply" in c.drawn)


async def test_help_in_a_dialog_lists_the_keys_of_the_dialog(chat, tmp_path):
    async with chat(FakeModel(), size=(80, 50), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        for key in ("ctrl+l", "ctrl+b", "ctrl+s"):
            await c.press(key)
            await c.press("f1")
            await c.until(lambda: "Close: close this dialog" in c.drawn)
            here = c.drawn.split("Here")[1].split("Everywhere")[0]
            if key == "ctrl+s":
                assert "⏎                 Done: accept the text" in here
            else:
                assert "↑                 Up: move to the previous item" in here
                assert "↓                 Down: move to the next item" in here
            assert "Scroll" not in c.drawn
            await c.press("escape")
            assert ("⏎ Done" if key == "ctrl+s" else "⏎ Open") in c.drawn.splitlines()[-1]
            await c.press("escape")


async def test_help_lists_every_action_of_the_keys_file_in_its_place(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db", size=(100, 24)) as c:
        await c.say("hello")
        named = {}

        def look():
            named.update({hint.id: hint for section in c.app.key_sections() for hint in section.keys})

        for widget in (c.screen.prompt, c.screen.conversation, *c.screen.inspector.switcher.children):
            if widget.id in VIEWS:
                c.screen.show_view(widget.id)
            widget.focus()
            await c.pilot.pause()
            look()
        await c.press("f1")
        await c.until(lambda: "knobs.less" in c.drawn)
        assert "←                 Less: lower the value  knobs.less" in c.drawn
        await c.press("escape")
        for key in ("ctrl+l", "ctrl+s", "f10"):
            await c.press(key)
            look()
            await c.press("escape")
        assert set(named) - {""} == ACTION_IDS
        assert named["chat.new"].key == "^n"
        assert named["chat.rename"].key == "–"
        assert {id for id, hint in named.items() if hint.key == "–"} == {
            a.id for a in ALL_ACTIONS if not a.keys
        }


async def test_an_action_without_a_key_can_be_given_one(chat, tmp_path):
    (tmp_path / "keys.toml").write_text('"chat.copy_prompt" = "ctrl+k,ctrl+n"\n')
    async with chat(FakeModel(), config=tmp_path) as c:
        await c.say("hello")
        for key in ("ctrl+k", "ctrl+n"):
            c.app.copy_to_clipboard("")
            await c.press(key)
            assert c.app.clipboard == "hello"
        hints = {hint.id: hint for section in c.app.key_sections() for hint in section.keys}
        assert hints["chat.copy_prompt"].key == "^k ^n"
        assert hints["chat.new"].key == "–"  # whose key was given away


def test_two_actions_of_one_place_have_different_keys():
    for place in (
        (*APP_ACTIONS, *PROMPT_ACTIONS, *CHAT_ACTIONS),
        (*VIEW_ACTIONS, *CANDIDATES_ACTIONS),
        (*LIBRARY_ACTIONS, *DIALOG_ACTIONS),
        (*WRITE_ACTIONS, *DIALOG_ACTIONS),
        (*ASK_ACTIONS, *DIALOG_ACTIONS),
    ):
        keys = [key for action in place for key in action.keys.split(",") if key]
        assert len(keys) == len(set(keys))


def test_every_action_can_be_reached_in_every_terminal():
    def delivered(key):
        return not key.startswith(("alt+", "shift+", "ctrl+m", "ctrl+i")) and not re.fullmatch(r"f\d+", key)

    for action in set(ALL_ACTIONS) - {*APP_ACTIONS, *CHAT_ACTIONS, *PROMPT_ACTIONS}:
        assert any(map(delivered, action.keys.split(","))) or action.id == "over.help", action.id


async def test_the_footer_is_never_cut_and_always_shows_quit(chat):
    async with chat(FakeModel()) as c:
        c.screen.show_view("knobs")
        for width in (40, 80, 100, 140):
            await c.pilot.resize_terminal(width, 24)
            for widget in (c.screen.prompt, c.screen.inspector.knobs):
                widget.focus()
                await c.pilot.pause()
                await c.until(lambda: c.drawn.splitlines()[-1].endswith("^p All f1 Help ^q Quit"))
                (line,) = c.screen.query_one(FittingFooter).render().split()
                assert line.rstrip().cell_length <= width


async def test_the_footer_names_the_key_under_the_mouse_and_a_click_presses_it(chat):
    async with chat(FakeModel(), size=(140, 24)) as c:
        footer, line = c.screen.query_one(FittingFooter), c.drawn.splitlines()[-1]
        await c.pilot.hover(footer, offset=(line.index("f4 Knobs"), 0))
        assert footer.tooltip == "Change the search settings"
        await c.pilot.hover(footer, offset=(line.index("f4 Knobs") - 1, 0))  # the space between two keys
        assert footer.tooltip is None
        await c.pilot.click(footer, offset=(line.index("Knobs") + 4, 0))
        await c.until(lambda: c.screen.inspector.view == "knobs")
        await c.pilot.click(footer, offset=(139, 0))
        await c.pilot.hover(c.screen.conversation)
        assert footer.tooltip is None


async def test_the_current_tab_is_visible_in_forty_columns(chat):
    async with chat(FakeModel(), size=(40, 20)) as c:
        for name in (*VIEWS, "candidates"):
            await c.view(name)
            await c.until(
                lambda name=name: c.screen.query_one("#tabs").region.contains_region(
                    c.screen.query_one(f"#tab-{name}").region
                )
            )
        await c.view("knobs")
        for width in (100, 40):
            await c.pilot.resize_terminal(width, 20)
            await c.until(lambda: "meter  knobs" in c.drawn)


async def test_without_a_downloads_folder_a_screenshot_is_saved_in_the_current_folder(
    chat, tmp_path, monkeypatch
):
    monkeypatch.setattr("platformdirs.user_downloads_path", lambda: tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    async with chat(FakeModel()) as c:
        c.app.deliver_screenshot("chat.svg")
        await c.until(lambda: c.notices)
        assert str(tmp_path / "chat.svg") in c.notices[0]
        assert (tmp_path / "chat.svg").read_text().startswith("<svg")


async def test_a_screenshot_that_cannot_be_saved_gives_the_reason(chat, tmp_path):
    async with chat(FakeModel()) as c:
        c.app.deliver_screenshot("chat.svg", str(tmp_path / "gone"))
        await c.until(lambda: c.notices)
        (said,) = c.notices
        assert said.startswith("The screenshot could not be saved: ")
        assert f"No such file or directory: '{tmp_path / 'gone' / 'chat.svg'}'" in said


async def test_keys_of_the_keys_file_work_and_are_shown_in_footer_and_help(chat, tmp_path):
    (tmp_path / "keys.toml").write_text('"chat.new" = "ctrl+k"\n"chat.library" = "f5"\nnonsense = "x"\n')
    async with chat(FakeModel(), config=tmp_path) as c:
        assert "'nonsense' is not an action. F1 shows each action's name" in c.notices[0]
        await c.say("hello")
        assert "^k New" in c.drawn
        await c.press("f1")
        await c.until(lambda: "^k" in c.drawn)
        await c.press("escape", "ctrl+n")
        assert c.messages
        await c.press("ctrl+k")  # the editor's own, otherwise
        assert c.messages == []


@pytest.mark.parametrize(
    ("lines", "pressed", "key_of", "said"),
    [
        # Send has two keys of its own, which are not lost to it.
        (
            {"prompt.send": "ctrl+s"},
            "ctrl+s",
            {"chat.export": "alt+s"},
            ["Export lost its key ctrl+s to Send"],
        ),
        ({"app.help": "f11"}, "f11", {"chat.bad": "alt+d"}, ["Bad lost its key f11 to Help"]),
        ({"chat.good": "ctrl+n"}, "ctrl+n", {"chat.new": "–"}, ["New lost its key ctrl+n to Good"]),
        ({"chat.good": "home"}, "home", {"chat.bad": "alt+d f11"}, []),
        ({"chat.good": ""}, "ctrl+g", {"chat.good": "–"}, []),
    ],
)
async def test_a_key_of_the_keys_file_is_removed_from_other_actions_with_a_notice(
    chat, tmp_path, lines, pressed, key_of, said
):
    (tmp_path / "keys.toml").write_text("".join(f'"{id}" = "{key}"\n' for id, key in lines.items()))
    async with chat(FakeModel(), config=tmp_path, size=(140, 40)) as c:
        assert c.notices == [f"keys.toml: {sentence}" for sentence in said]
        await c.say("hello")
        c.screen.prompt.insert("more")
        bound = {hint.id: hint.key for section in c.app.key_sections() for hint in section.keys}
        assert {id: bound[id] for id in key_of} == key_of
        footer = c.drawn.splitlines()[-1]
        assert "<" not in footer
        await c.press(pressed)
        await c.until(lambda: c.chat.prompt.ready)
        (done,) = lines
        assert (c.prompt == "") == (done == "prompt.send")
        assert (c.app.screen is not c.chat) == (done == "app.help")
        assert c.messages[1] == "bot: fine" + "\n✓ good" * (lines.get("chat.good", "") != "")


def test_a_key_that_types_or_is_in_use_is_refused_with_the_reason(tmp_path):
    lines = {
        "chat.good": "ctrl+k",
        "chat.bad": "f11,ctrl+k",
        "chat.new": "g",
        "chat.why": "space",
        "ask.done": "?",
        "view.down": "down,space",
        "beam.after": "down",
        "chat.quit": "f5",
    }
    (tmp_path / "keys.toml").write_text("".join(f'"{id}" = "{key}"\n' for id, key in lines.items()))
    keys, problems = load_keys(tmp_path)
    assert keys == {"chat.good": "ctrl+k", "view.down": "down,space", "beam.after": "down"}
    written = "types a character, so it can only be the key of an action in a view"
    assert [problem.split("keys.toml")[1] for problem in problems] == [
        ": 'chat.bad' keeps its default keys: 'ctrl+k' is already the key of 'chat.good'",
        f": 'chat.new' keeps its default keys: 'g' {written}",
        f": 'chat.why' keeps its default keys: 'space' {written}",
        f": 'ask.done' keeps its default keys: '?' {written}",
        ": 'chat.quit' is not an action; did you mean 'app.quit'? F1 shows each action's name",
    ]


async def test_keys_of_views_do_not_change_the_prompt(chat, tmp_path):
    keys = {"view.down": "down,j", "view.up": "k", "view.last": "G", "view.first": "g"}
    (tmp_path / "keys.toml").write_text("".join(f'"{id}" = "{key}"\n' for id, key in keys.items()))
    model = FakeModel(Script(end=reply(*(f"reply {n}" for n in range(40)))), turns=2)
    async with chat(model, config=tmp_path) as c:
        await c.say("first " * 100)
        await c.say("second " * 100)
        for view in VIEWS:
            await c.view(view)
            shown = c.screen.inspector.shown
            shown.focus()
            places = []
            for key in ("g", "j", "down", "k", "G", "g"):
                await c.press(key)
                lit = shown.cursor_row if view == "candidates" else getattr(shown, "highlighted", 0)
                places.append((lit, shown.scroll_offset.y))
            if view in ("candidates", "seen", "knobs"):  # the others have no more than a page here
                top, once, twice, back, last, again = places
                assert top == again < once == back < twice < last
            bound = c.screen.active_bindings
            assert {bound[key].binding.id for key in ("j", "down")} == {"view.down"}
            assert "up" not in bound
            hints = {hint.id: hint.key for section in c.app.key_sections() for hint in section.keys}  # of F1
            assert (hints["view.down"], hints["view.up"], hints["view.last"]) == ("↓ j", "k", "G")
        assert c.prompt == ""
        c.screen.prompt.focus()
        await c.press("up")  # through what was said
        assert c.prompt == "second " * 100
        await c.press("down")
        assert c.prompt == ""


def test_an_unreadable_keys_file_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "keys.toml").write_text("chat.new = [\n")
    keys, (problem,) = load_keys(tmp_path)
    assert keys == {}
    assert "keys.toml cannot be read, so the default keys are used" in problem


def test_an_unknown_key_or_action_is_refused_with_a_suggestion(tmp_path):
    lines = {
        "chat.new": "kontrol+q",
        "chat.good": "ctrl+g, Return",
        "chat.copy": "ctrl+g,",
        "chat.nwe": "f5",
        "view.down": "down,j,?,shift+ctrl+left",
    }
    (tmp_path / "keys.toml").write_text("".join(f'"{id}" = "{key}"\n' for id, key in lines.items()))
    keys, problems = load_keys(tmp_path)
    assert keys == {"view.down": "down,j,question_mark,ctrl+shift+left"}
    assert [problem.split("keys.toml")[1] for problem in problems] == [
        ": 'chat.new' keeps its default keys: 'kontrol+q' is not a key; did you mean 'ctrl+q'?",
        ": 'chat.good' keeps its default keys: 'Return' is not a key; did you mean 'enter'?",
        ": 'chat.copy' keeps its default keys: '' is not a key; write a key as 'ctrl+g', 'f5' or "
        "'question_mark'",
        ": 'chat.nwe' is not an action; did you mean 'chat.new'? F1 shows each action's name",
    ]


def test_the_keys_file_in_the_docs_is_valid(tmp_path):
    docs = (Path(__file__).parents[2] / "docs" / "chat.md").read_text()
    (tmp_path / "keys.toml").write_text(docs.split("```toml\n")[1].split("```")[0])
    keys, problems = load_keys(tmp_path)
    assert (keys["view.down"], problems) == ("down,j", [])


def test_every_key_that_a_terminal_sends_can_be_named():
    named = {key for action in ALL_ACTIONS for key in action.keys.split(",") if key}
    for sent in (*ANSI_SEQUENCES_KEYS, *map(chr, range(32, 127)), "\x1b[97;6u", "\x1b[57363u"):
        named |= {event.key for event in XTermParser()._sequence_to_key_events(sent)}
    named = {key for key in named if key.isprintable() and not key.startswith("<")}  # others are no keys
    assert {"ctrl+shift+f5", "question_mark", "a", "A", "space", "shift+tab", "ctrl+shift+a", "menu"} <= named
    assert {key: parse_key(key) for key in named} == {key: key for key in named}


@pytest.mark.parametrize(
    ("text", "key", "like"),
    [
        ("?", "question_mark", "question_mark"),
        ("ctrl+\\", "ctrl+backslash", "ctrl+backslash"),
        ("shift+ctrl+left", "ctrl+shift+left", "ctrl+shift+left"),
        ("Ctrl+N", None, "ctrl+n"),  # with Ctrl a terminal sends the small letter
        ("^n", None, "ctrl+n"),
        ("ctrl-n", None, "ctrl+n"),
        ("shift+a", None, None),  # that is A
        ("page_down", None, "pagedown"),
        ("esc", None, "escape"),
        ("latin_small_letter_a", None, None),
        ("ctrl+ctrl+a", None, None),
        ("hold+a", None, None),
        ("ctrl+", None, None),
        ("\x1b", None, None),
    ],
)
def test_a_key_is_written_as_textual_names_it(text, key, like):
    assert parse_key(text) == key
    assert suggest_key(text) == like


async def test_the_theme_is_saved(chat, tmp_path):
    async with chat(FakeModel(), config=tmp_path) as c:
        assert c.app.theme == "edgechat-dark"
        c.app.theme = "textual-light"
        await c.pilot.pause()
    async with chat(FakeModel(), config=tmp_path) as c:
        assert c.app.theme == "textual-light"
    for damaged in ('{"theme": "gone"', '{"theme": ["x"]}', '["theme"]', '{"theme": "gone"}'):
        (tmp_path / "settings.json").write_text(damaged)
        async with chat(FakeModel(), config=tmp_path) as c:
            assert c.app.theme == "edgechat-dark"


async def test_the_views_are_complete_without_colors_and_with_ansi_colors(chat, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with chat(table_model({"good day": 0.6, "hello": 0.4}), size=(140, 40)) as c:
        await c.say("hi")
        drawn = await c.view("attention")
        assert "█100" in drawn
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with chat(table_model({"good day": 0.6, "hello": 0.4}), size=(140, 40)) as c:
        c.app.theme = "ansi-dark"
        await c.say("hi")
        assert "█100" in await c.view("attention")


@pytest.mark.parametrize(("value", "colored"), [("1", False), ("", True), (None, True)])
async def test_an_empty_no_color_counts_as_not_set(chat, monkeypatch, value, colored):
    if value is None:
        monkeypatch.delenv("NO_COLOR", raising=False)
    else:
        monkeypatch.setenv("NO_COLOR", value)
    async with chat(FakeModel()) as c:
        assert c.app.no_color != colored
        assert bool(c.app.native_ansi_color) != colored
        colors = {segment.style.color.name for strip in c.strips
                   for segment in strip if segment.style and segment.style.color}  # fmt: skip
        assert bool(colors)


async def test_the_welcome_says_what_the_model_remembers_and_lists_the_keys(chat):
    async with chat(FakeModel(turns=1)) as c:
        text = c.words
        assert "demo 2 layers of 256 units · 4,096 tokens · int8 · 4.2 MB · cpu" in text
        assert "remembers nothing said before" in text
        assert "^o New line" in text
    async with chat(FakeModel(turns=3)) as c:
        assert "the last 3 turns" in c.words
        c.screen.set_focus(None)  # as in a browser, before it is clicked into
        c.screen.show_welcome()
        await c.pilot.pause()
        assert "^o New line" not in c.drawn
        c.screen.prompt.focus()
        await c.until(lambda: "^o New line" in c.drawn)


async def test_the_inspector_is_at_the_side_when_wide_and_hidden_when_narrow(chat):
    async with chat(FakeModel(), size=(80, 24)) as c:
        inspector, conversation = c.screen.inspector, c.screen.conversation
        assert not inspector.display
        await c.press("f2")
        assert inspector.display
        assert inspector.region.y >= conversation.region.bottom
        await c.pilot.resize_terminal(140, 40)
        await c.pilot.pause()
        assert inspector.region.x >= conversation.region.right
        await c.press("ctrl+t")
        assert not inspector.display
        await c.pilot.resize_terminal(80, 24)
        await c.pilot.pause()
        assert not inspector.display


async def test_resizing_keeps_conversation_and_draft(chat):
    async with chat(FakeModel(Script(end=reply("one", "two " * 20)))) as c:
        await c.say("hello " * 30)
        messages = c.messages
        c.screen.prompt.insert("draft")
        for size in [(140, 40), (80, 24), (40, 12), (140, 40)]:
            await c.pilot.resize_terminal(*size)
            await c.pilot.pause()
            assert c.messages == messages
            assert c.prompt == "draft"
            assert [row[0] for row in c.candidates] == ["● 1", " 2"]
        assert "bot   one" in c.drawn


def test_keys_with_alt_do_not_collide_with_sequences_of_other_keys():
    """Alt with a letter is sent as escape and the letter. For some letters, this is the sequence of an arrow
    key."""
    letters = [key[4:] for action in ALL_ACTIONS for key in action.keys.split(",") if key.startswith("alt+")]
    single = [letter for letter in letters if len(letter) == 1]
    assert "d" in single
    assert [letter for letter in single if f"\x1b{letter}" in ANSI_SEQUENCES_KEYS] == []


def test_an_action_with_an_unreliable_key_has_another_kind_of_key_too():
    def kind(key):
        return "function" if re.search(r"\bf\d", key) else "alt" if key.startswith("alt+") else "any"

    for action in ALL_ACTIONS:
        kinds = {kind(key) for key in action.keys.split(",") if key}
        # Help is in the palette too, which has a key of its own.
        assert "any" in kinds or len(kinds) != 1 or action.id in ("app.help", "over.help"), action


async def test_in_forty_columns_and_ten_rows_the_chat_is_usable(chat, tmp_path):
    async with chat(FakeModel(), size=(40, 10), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        assert "you   hello" in c.drawn
        assert "bot   fine" in c.drawn
        await c.press("f4")
        assert "beam" in c.drawn.split("\u256d")[0].split("\n", 1)[1]  # below the tabs, above the prompt
        await c.press("f4", "f2", "ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.press("escape", "f10", *"ly")
        assert "finely" in c.drawn


@pytest.mark.parametrize("width", [40, 58, 80, 110, 120, 140])
async def test_keys_and_labels_of_the_welcome_stay_on_one_line(chat, width):
    async with chat(FakeModel(), size=(width, 40)) as c:
        await c.until(lambda: c.chat.welcome.size.width)
        hints = [f"{hint.key} {hint.description}" for hint in c.chat.key_hints()]
        assert len(hints) > 5
        await c.until(lambda: all(hint in c.drawn for hint in hints))


async def test_if_a_narrower_terminal_hides_the_focused_view_the_prompt_has_the_focus(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        c.screen.inspector.shown.focus()
        await c.pilot.pause()
        await c.pilot.resize_terminal(80, 24)
        await c.until(lambda: c.screen.focused is c.screen.prompt)
        await c.press(*"hi", "enter")
        await c.until(lambda: c.messages == ["you: hi", "bot: fine"])


async def test_in_a_view_the_footer_says_that_escape_stops_the_reply(chat):
    async with chat(FakeModel(Script(waits_for_cancel=True)), size=(140, 40)) as c:
        await c.say("hello", wait=False)
        c.screen.inspector.shown.focus()
        await c.until(lambda: "esc Stop" in c.drawn)
        assert "Back" not in c.drawn
        await c.press("escape")
        await c.until(lambda: "esc Back" in c.drawn)
        assert c.screen.inspector.shown.has_focus
