"""The store: saving, searching, several windows, and kills at any moment."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from edgechat.tui import store as store_module
from edgechat.tui.store import PURGE_DELAY_SECONDS, Store, StoreError
from edgechat.tui.text_search import excerpt
from edgechat.tui.titles import title_of
from edgechat.tui.values import CandidateRow, Exchange, ReplyFacts, ReplyOrigin

REPLY = ReplyFacts(
    "fine",
    (
        CandidateRow(1, -0.25, -1.0, "fine", True, ("fine",), (-0.5, -0.5)),
        CandidateRow(2, -1, -2, "so", False),
    ),
    tokens=1,
    ms=12.5,
    made=ReplyOrigin(
        "demo", "int8", "cpu", "abc", "/b/demo", {"beam": 3, "length_penalty": None}, ("hi", "you", "how")
    ),
    step_ms=(3.0, 1.5),
    first_ms=3.5,
    memory=1000,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "edgechat" / "chats.db"


@pytest.fixture
def store(path):
    opened = Store(path)
    yield opened
    opened.close()


@pytest.fixture(params=["fts5", "no fts5"])
def searched(request, path, monkeypatch):
    """A store with a full-text index, and one without."""
    if request.param == "no fts5":
        monkeypatch.setattr(Store, "_open_index", lambda self: False)
    opened = Store(path)
    yield opened
    opened.close()


def rows(path, query):
    """The rows of a query, in a connection of its own."""
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def say(store, title, *prompts, reply="fine"):
    id, _ = store.create(title, "demo")
    for prompt in prompts:
        store.append(id, Exchange(prompt, reply=ReplyFacts(reply)))
    return id


def test_exchanges_are_read_as_they_were_written(path):
    first = Store(path)
    id, _ = first.create("greeting", "demo")
    said = [
        Exchange("how are you?", reply=REPLY, other=ReplyFacts("good"), mark="bad", answer="well\n你好 🙂"),
        Exchange("stop", "stopped", ReplyFacts("so far", finished=False)),
        Exchange("break", "failed"),
    ]
    ids = [first.append(id, exchange) for exchange in said]
    first.close()
    title, exchanges = Store(path).load(id)
    assert title == "greeting"
    assert [exchange.id for exchange in exchanges] == ids
    assert [Exchange(**{**vars(e), "id": None}) for e in exchanges] == said


def test_an_exchange_can_be_changed_and_replaced(store):
    id = say(store, "t", "one", "two")
    _, (one, two) = store.load(id)
    store.update(Exchange("uno", reply=REPLY, mark="good"), one.id)
    three = store.append(id, Exchange("three", reply=REPLY), instead_of=two.id)
    _, exchanges = store.load(id)
    assert exchanges == [
        Exchange("uno", reply=REPLY, mark="good", id=one.id),
        Exchange("three", reply=REPLY, id=three),
    ]
    assert [s.id for s in store.find("uno three")] == [id]
    assert store.find("one") == store.find("two") == []


def test_the_latest_changed_conversation_is_first(store):
    old, new = say(store, "old", "a"), say(store, "new", "b", "c")
    assert [(s.id, s.title, s.exchanges) for s in store.find()] == [(new, "new", 2), (old, "old", 1)]
    store.append(old, Exchange("again"))
    assert [s.id for s in store.find()] == [old, new]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("weather", ["sky"]),
        ("WEATHER", ["sky"]),
        ("eath", ["sky"]),
        ("sky", ["sky"]),
        ("weather rain", ["sky"]),
        ("weather joke", []),
        ("你好", ["greeting"]),
        ("好", ["greeting"]),
        ("joke", ["fun"]),
        ('"joke" OR', []),
        ("a*", []),
        ("100%", ["fun"]),
        ("_", []),
        ("ÄRGER", ["fun"]),
        ("STRASSE", ["fun"]),
        ("a\N{COMBINING DIAERESIS}rger", ["fun"]),
    ],
)
def test_search_finds_parts_of_words_in_titles_prompts_replies_and_answers(searched, query, found):
    say(searched, "sky", "how is the Weather?", reply="it will rain")
    say(searched, "greeting", "你好，世界")
    say(searched, "fun", "tell a joke", "100% ärger auf der Straße")
    assert [s.title for s in searched.find(query)] == found


def test_a_search_result_has_an_excerpt(searched):
    say(searched, "t", "first", "x" * 300 + " needle in a haystack")
    (summary,) = searched.find("needle")
    assert summary.excerpt == "…" + "x" * 19 + " needle in a haystack"


def test_an_excerpt_is_right_even_if_folding_changes_the_length():
    assert excerpt(["a line", "ß" * 100 + " needle in hay"], "needle") == "…" + "ß" * 19 + " needle in hay"
    assert excerpt(["e\u0301" * 100 + " needle"], "needle") == "…" + "é" * 19 + " needle"
    assert excerpt(["Straße\nand " + "x" * 30 + " STRASSE"], "strasse") == "Straße"


def test_the_excerpt_is_from_the_first_exchange_with_the_most_words(searched):
    prompts = ["a kettle", "nothing", "a copper kettle on the stove", "the copper kettle"]
    say(searched, "tea", *prompts)
    (summary,) = searched.find("KETTLE copper")
    assert (summary.excerpt, summary.found_in) == ("a copper kettle on the stove", 3)
    (summary,) = searched.find("stove nothing")
    assert (summary.excerpt, summary.found_in) == ("nothing", 2)
    (summary,) = searched.find("tea")
    assert (summary.excerpt, summary.found_in) == ("", None)
    (summary,) = searched.find()
    assert (summary.excerpt, summary.found_in) == ("", None)


def test_exchanges_written_without_an_index_are_indexed_later(path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_open_index", lambda self: False)
        without = Store(path)
        say(without, "t", "needle")
        without.close()
    store = Store(path)
    assert rows(path, "SELECT count(*) FROM said") == [(1,)]
    assert len(store.find("needle")) == 1


def test_a_deleted_conversation_can_be_restored_until_the_window_closes(path):
    store = Store(path)
    kept, gone = say(store, "kept", "a needle"), say(store, "gone", "a needle")
    store.delete(gone)
    assert [s.id for s in store.find("needle")] == [kept]
    store.restore(gone)
    assert [s.id for s in store.find("needle")] == [gone, kept]
    store.delete(gone)
    store.close()
    again = Store(path)
    with pytest.raises(StoreError, match="deleted"):
        again.load(gone)
    assert rows(path, "SELECT count(*) FROM exchanges") == [(1,)]
    assert rows(path, "SELECT count(*) FROM said") == [(1,)]


def test_deletions_of_a_killed_window_are_purged_a_day_later_if_others_are_open(path, monkeypatch):
    killed = Store(path)
    gone = say(killed, "gone", "x")
    killed.delete(gone)
    assert Store(path).load(gone)[0] == "gone"
    now = time.time()
    monkeypatch.setattr(store_module.time, "time", lambda: now + PURGE_DELAY_SECONDS + 1)
    with pytest.raises(StoreError, match="deleted"):
        Store(path).load(gone)


def bytes_of(path):
    """The contents of the file and of the files that SQLite keeps beside it."""
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


@pytest.mark.parametrize("others", [0, 1])
def test_a_purge_leaves_no_byte_in_the_file(path, others):
    store, *open_ones = [Store(path) for _ in range(1 + others)]
    id = say(store, "gone", "my secret needle")
    assert all(other.find("needle") for other in open_ones)
    store.delete(id)
    assert b"needle" in bytes_of(path)
    store.close()
    assert b"needle" not in bytes_of(path)


#: A window that deletes a conversation and is killed.
DELETES = """
import os, signal, sys
from edgechat.tui.store import Store
from edgechat.tui.values import Exchange

store = Store(sys.argv[1])
id, _ = store.create("gone", "demo", [Exchange("my secret needle")])
store.delete(id)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_deletions_of_a_killed_window_are_purged_by_the_next_unless_others_are_open(path):
    other = Store(path)
    killed = subprocess.run([sys.executable, "-c", DELETES, str(path)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    Store(path).close()
    assert b"needle" in bytes_of(path)  # who knows whether the other one can bring it back
    other.close()
    alone = Store(path)
    assert b"needle" not in bytes_of(path)
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    alone.close()


def test_two_windows_add_to_one_conversation_and_see_each_other(path):
    one, two = Store(path), Store(path)
    id = say(one, "t", "first")
    two.append(id, Exchange("second"))
    one.append(id, Exchange("third"))
    assert [e.prompt for e in two.load(id)[1]] == ["first", "second", "third"]
    assert one.latest_prompts() == ["first", "second", "third"]


def test_a_conversation_deleted_elsewhere_cannot_be_changed(path):
    one, two = Store(path), Store(path)
    id = say(one, "t", "first")
    two.delete(id)
    for change in (
        lambda: one.append(id, Exchange("second")),
        lambda: one.update(Exchange("first", mark="good"), 1),
        lambda: one.rename(id, "another"),
        lambda: one.delete(id),
    ):
        with pytest.raises(StoreError, match="This conversation was deleted in another window"):
            change()
    assert one.find() == []
    assert (one.deleted_titles(), two.deleted_titles()) == ({}, {id: "t"})
    two.restore(id)
    assert one.load(id) == ("t", [Exchange("first", reply=ReplyFacts("fine"), id=1)])
    two.delete(id)
    two.close()
    with pytest.raises(StoreError, match="deleted in another window"):
        one.append(id, Exchange("second"))


def test_exchanges_added_after_a_deletion_are_restored_too(store):
    id = say(store, "t", "first")
    store.delete(id)
    store.append(id, Exchange("second"))
    assert store.find() == []
    store.restore(id)
    assert [e.prompt for e in store.load(id)[1]] == ["first", "second"]


def test_a_lock_is_reported_in_one_sentence_and_loses_only_that_write(path, monkeypatch):
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_SECONDS", 0.05)
    store = Store(path)
    id = say(store, "t", "first")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"chats\.db: database is locked"):
        store.append(id, Exchange("second"))
    other.execute("ROLLBACK")
    store.append(id, Exchange("third"))
    assert [e.prompt for e in store.load(id)[1]] == ["first", "third"]


def test_a_file_of_a_newer_version_is_not_changed(path):
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="newer edgechat"):
        Store(path)
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (99,)


def test_an_older_file_is_migrated(path, monkeypatch):
    store = Store(path)
    id = say(store, "t", "first")
    store.close()
    known = len(store_module.MIGRATIONS)
    later = (*store_module.MIGRATIONS, "ALTER TABLE conversations ADD COLUMN pinned INTEGER DEFAULT 7")
    monkeypatch.setattr(store_module, "MIGRATIONS", later)
    migrated = Store(path)
    assert rows(path, "SELECT pinned FROM conversations") == [(7,)]
    assert rows(path, "PRAGMA user_version") == [(known + 1,)]
    assert [e.prompt for e in migrated.load(id)[1]] == ["first"]


def test_a_file_with_an_old_index_is_indexed_again(path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "MIGRATIONS", store_module.MIGRATIONS[:1])
        patched.setattr(store_module, "fold_case", lambda text: text)
        first = Store(path)
        say(first, "t", "die Straße")
        first.close()
    assert [s.title for s in Store(path).find("strasse")] == ["t"]


def test_missing_index_entries_are_found_without_a_full_scan(path):
    store = Store(path)
    say(store, "t", "one", "two")
    store.close()
    db = sqlite3.connect(path)
    plan = db.execute("EXPLAIN QUERY PLAN " + store_module.UNINDEXED_QUERY).fetchall()
    db.close()
    assert "USING INDEX unindexed" in str(plan)


@pytest.mark.parametrize(
    "contents",
    [b"this is no database" * 100, b"SQLite format 3\0" + b"x" * 4096],
    ids=["no SQLite", "damaged"],
)
def test_a_file_that_is_not_a_database_is_reported_and_not_changed(path, contents):
    path.parent.mkdir()
    path.write_bytes(contents)
    with pytest.raises(StoreError, match=r"chats\.db"):
        Store(path)
    assert path.read_bytes() == contents


@pytest.mark.parametrize("table", ["said_config", "exchanges"])
def test_damage_is_reported_and_the_file_is_not_changed(path, table):
    store = Store(path)
    say(store, "t", "first", "second")
    ((page, size),) = rows(
        path,
        f"SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = '{table}'",
    )
    store.close()
    contents = bytearray(path.read_bytes())
    contents[(page - 1) * size : page * size] = b"x" * size
    path.write_bytes(contents)
    with pytest.raises(StoreError, match=r"chats\.db: the file is damaged"):
        Store(path).latest_prompts()
    assert path.read_bytes() == contents


def test_a_folder_that_cannot_be_created_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"\Aconversations cannot be read or saved: not a folder: .*file\Z"):
        Store(tmp_path / "file" / "chats.db")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (sqlite3.SQLITE_IOERR, r" in .*chats\.db: it went wrong"),
        (sqlite3.SQLITE_CANTOPEN, ": cannot open or create"),
    ],
    ids=["input or output fails", "cannot open"],
)
def test_an_error_says_whether_conversations_cannot_be_read_or_cannot_be_saved(
    store, monkeypatch, error, reason
):
    id = say(store, "t", "first")

    class Broken:
        in_transaction = False

        def execute(self, *_):
            failure = sqlite3.OperationalError("it went wrong")
            failure.sqlite_errorcode = error
            raise failure

    monkeypatch.setattr(store, "_db", Broken())
    for read in (store.find, store.deleted_titles, store.latest_prompts, lambda: store.load(id)):
        with pytest.raises(StoreError, match=rf"\Aconversations cannot be read{reason}"):
            read()
    for write in (lambda: store.rename(id, "u"), lambda: store.append(id, Exchange("second"))):
        with pytest.raises(StoreError, match=rf"\Aconversations cannot be saved{reason}"):
            write()
    monkeypatch.undo()


def test_lone_surrogates_can_be_saved(store):
    id, _ = store.create("t", "demo")
    store.append(id, Exchange("a\ud800", reply=ReplyFacts("b\udfff"), answer="\ud800"))
    assert store.load(id)[1][0].prompt == "a?"


def test_a_title_is_one_short_line():
    assert title_of("hello\n  there") == "hello there"
    assert title_of("word " * 40) == ("word " * 11 + "word…")


#: Forks a child for each n, which is killed before its n-th statement, until one gets through.
KILLED = """
import os, pathlib, signal, sqlite3, sys
from edgechat.tui import store
from edgechat.tui.values import Exchange, ReplyFacts

class Killed(sqlite3.Connection):
    left = 0
    def execute(self, *args):
        if Killed.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Killed.left -= 1
        return super().execute(*args)

connect = sqlite3.connect
store.sqlite3.connect = lambda *args, **kwargs: connect(*args, **kwargs, factory=Killed)

def live(folder):
    out = open(folder / "said", "w")
    def tell(what):
        print(what, file=out, flush=True)
    opened = store.Store(folder / "chats.db")
    id, _ = opened.create("t", "demo")
    for n in range(2):
        opened.append(id, Exchange(f"prompt {n}", reply=ReplyFacts(f"needle {n}")))
        tell("appended")
    opened.update(Exchange("prompt 0", reply=ReplyFacts("needle zero")), 1)
    tell("updated")
    opened.delete(id)
    tell("deleted")
    opened.restore(id)
    tell("restored")
    opened.append(id, Exchange("prompt 2", reply=ReplyFacts("needle 2")), instead_of=2)
    tell("replaced")
    opened.create("copy", "demo", [Exchange(f"copied {n}", reply=ReplyFacts("needle")) for n in range(2)])
    tell("copied")

for n in range(300):
    folder = pathlib.Path(sys.argv[1], str(n))
    folder.mkdir()
    child = os.fork()
    if child == 0:
        Killed.left = n
        live(folder)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(n)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_kill_between_any_two_statements_loses_no_finished_write(tmp_path):
    code = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=60, check=True)
    last = int(done.stdout)
    assert last > 40
    for n in range(last + 1):
        log = tmp_path / str(n) / "said"
        said = log.read_text().split()
        file = tmp_path / str(n) / "chats.db"
        store = Store(file)
        assert rows(file, "PRAGMA integrity_check") == [("ok",)]
        prompts = [prompt for (prompt,) in rows(file, "SELECT prompt FROM exchanges ORDER BY id")]
        # A copy is there whole, or is not.
        copied = [prompt for prompt in prompts if prompt.startswith("copied")]
        assert copied in ([], ["copied 0", "copied 1"])
        assert bool(copied) == any(s.title == "copy" for s in store.find())
        assert copied or "copied" not in said
        prompts = prompts[: len(prompts) - len(copied)]
        appended = said.count("appended")
        if "replaced" in said:
            assert prompts == ["prompt 0", "prompt 2"]
        elif "restored" in said:
            assert prompts in (["prompt 0", "prompt 1"], ["prompt 0", "prompt 2"])
        elif "deleted" in said:
            assert prompts in ([], ["prompt 0", "prompt 1"])  # nobody else can bring it back
        else:
            assert prompts in (
                ["prompt 0", "prompt 1"][:appended],
                ["prompt 0", "prompt 1"][: appended + 1],  # kept, but not yet said to be
            )
            assert store.find("needle") or not prompts or "updated" in said
        if "updated" in said and prompts:
            assert "needle zero" in [r for (r,) in rows(file, "SELECT reply FROM exchanges")]
        # The index knows exactly what there is.
        ids = rows(file, "SELECT id FROM exchanges")
        assert rows(file, "SELECT rowid FROM said") == ids
        store.close()
    assert "copied" in said
