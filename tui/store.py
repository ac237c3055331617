"""Conversations on the disk: one SQLite file, which several windows may use at once.

A write is one transaction in WAL mode: after a kill at any moment, all of it is there or nothing. A
connection belongs to the thread that opened it; `keeper.py` gives it one.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgechat.runtime import EdgeChatError

from .records import columns, exchange_of, storable
from .search import excerpt, folded, holds
from .values import Exchange, Summary

#: Scripts that bring the file from version n to n + 1 (`PRAGMA user_version`). A released one never changes.
MIGRATIONS = (
    """
    CREATE TABLE conversations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        bundle TEXT NOT NULL,
        updated REAL NOT NULL,
        deleted REAL
    );
    CREATE TABLE exchanges (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation INTEGER NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        prompt TEXT NOT NULL,
        state TEXT NOT NULL,
        reply TEXT NOT NULL,
        mark TEXT,
        answer TEXT,
        details TEXT NOT NULL,
        indexed INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX exchanges_of ON exchanges (conversation, id);
    CREATE INDEX conversations_by_time ON conversations (updated);
    """,
    """
    DROP TABLE IF EXISTS said;
    UPDATE exchanges SET indexed = 0;
    """,  # the index has folded text now
    """
    CREATE INDEX unindexed ON exchanges (id) WHERE NOT indexed;
    """,  # that is looked for at every start
)
#: Ids of what is not in the full-text index.
UNINDEXED = "SELECT id FROM exchanges WHERE NOT indexed"
#: Seconds that what a killed window deleted stays while others are open: they may be who can bring it back.
KEPT_DELETED = 24 * 3600.0
#: Seconds to wait for another window's write.
PATIENCE = 5.0
#: Why a conversation is not there.
GONE = "this conversation was deleted in another window"
#: Rows of a list at most, each with where something was found: more take long to draw.
LISTED = 500
#: Characters of a title.
TITLE = 60
#: Characters of a term that the index of SQLite's trigram tokenizer can find; shorter ones are looked for.
_TRIGRAM = 3


class StoreError(EdgeChatError):
    """Conversations cannot be kept or read; the text names the file."""


class BusyError(StoreError):
    """Another window, or another program, has the file for itself just now."""


class DamagedError(StoreError):
    """A conversation cannot be read, others can; the text names it."""


class GoneError(StoreError):
    """What this is about was deleted in another window."""


class Store:
    """Conversations, newest first, with what was said in each.

    Raises:
        StoreError: from any method, where the file cannot be used.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the file, and make or migrate it. ":memory:" keeps nothing."""
        self.path = str(path)
        self._deleted: set[int] = set()  # here, and not yet for good
        with self._errors():
            if self.path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Forget for good what was deleted here, and close the file."""
        with self._errors():
            try:
                self._purge(tuple(self._deleted))
            finally:
                self._db.close()

    # --- Conversations

    def create(self, title: str, bundle: str, exchanges: Sequence[Exchange] = ()) -> tuple[int, list[int]]:
        """A new conversation with these exchanges; gives its id, and theirs."""
        with self._write():
            row = self._db.execute(
                "INSERT INTO conversations (title, bundle, updated) VALUES (?, ?, ?)",
                (storable(title), storable(bundle), time.time()),
            )
            assert row.lastrowid is not None
            return row.lastrowid, [self._insert(row.lastrowid, exchange) for exchange in exchanges]

    def find(self, query: str = "") -> list[Summary]:
        """Those in which every word of `query` occurs, in the title or in what was said, newest first; as
        many as are listed with where it occurs."""
        terms = storable(query).split()
        with self._errors():
            ids: set[int] | None = None
            for term in terms:
                found = self._containing(term)
                ids = found if ids is None else ids & found
            rows = self._db.execute(
                "SELECT c.id, c.title, c.bundle, c.updated, count(e.id) FROM conversations c "
                "LEFT JOIN exchanges e ON e.conversation = c.id WHERE c.deleted IS NULL "
                "GROUP BY c.id ORDER BY c.updated DESC, c.id DESC"
            )
            chosen = [row for row in rows if ids is None or row[0] in ids]
            return [
                Summary(id, title, bundle, updated, turns, *self._hit(id, terms if n < LISTED else []))
                for n, (id, title, bundle, updated, turns) in enumerate(chosen)
            ]

    def title(self, conversation: int) -> str | None:
        """None where it was deleted for good."""
        with self._errors():
            wanted = "SELECT title FROM conversations WHERE id = ?"
            found = self._db.execute(wanted, (conversation,)).fetchone()
        return found and str(found[0])

    def load(self, conversation: int) -> tuple[str, list[Exchange]]:
        """Its title and what was said.

        Raises:
            GoneError: it was deleted for good.
            DamagedError: it cannot be read.
        """
        title = self.title(conversation)
        if title is None:
            raise GoneError(GONE)
        with self._errors():
            rows = self._db.execute(
                "SELECT id, prompt, state, mark, answer, details FROM exchanges "
                "WHERE conversation = ? ORDER BY id",
                (conversation,),
            )
            try:
                return title, [exchange_of(row) for row in rows]
            except (ValueError, TypeError, RecursionError) as error:
                which = f"the conversation {title_of(title)!r} in {self.path}"
                raise DamagedError(f"{which} is damaged: {type(error).__name__} {error}") from error

    def rename(self, conversation: int, title: str) -> None:
        """Give it another title.

        Raises:
            GoneError: it was deleted in another window.
        """
        with self._write():
            self.check_there(conversation)
            self._db.execute(
                "UPDATE conversations SET title = ? WHERE id = ?", (storable(title), conversation)
            )

    def delete(self, conversation: int) -> None:
        """Take it off the list; `restore` brings it back until this store is closed.

        Raises:
            GoneError: it was deleted in another window.
        """
        with self._write():
            self.check_there(conversation)
            self._db.execute("UPDATE conversations SET deleted = ? WHERE id = ?", (time.time(), conversation))
        self._deleted.add(conversation)

    def restore(self, conversation: int) -> None:
        """Undo `delete`.

        Raises:
            GoneError: by now it is deleted for good.
        """
        with self._write():
            change = "UPDATE conversations SET deleted = NULL WHERE id = ?"
            if not self._db.execute(change, (conversation,)).rowcount:
                raise GoneError(GONE)
        self._deleted.discard(conversation)

    def deleted(self) -> dict[int, str]:
        """Titles of those that were deleted here and can be brought back, by id, the latest last."""
        with self._errors():
            rows = self._db.execute(
                "SELECT id, title FROM conversations WHERE deleted NOTNULL ORDER BY deleted"
            )
            return {id: title for id, title in rows if id in self._deleted}

    def check_there(self, conversation: int) -> None:
        """One that was deleted here may be changed, and comes back as it is then; one that another window
        deleted is gone, whether that can bring it back or not.

        Raises:
            GoneError: it is gone.
        """
        with self._errors():
            wanted = "SELECT deleted FROM conversations WHERE id = ?"
            found = self._db.execute(wanted, (conversation,)).fetchone()
        if found is None or (found[0] is not None and conversation not in self._deleted):
            raise GoneError(GONE)

    # --- What was said

    def append(self, conversation: int, exchange: Exchange, *, instead_of: int | None = None) -> int:
        """Add an exchange at the end, in the place of one that goes if its id is given; gives its id.

        Raises:
            GoneError: the conversation was deleted in another window.
        """
        with self._write():
            self.check_there(conversation)
            self._db.execute("UPDATE conversations SET updated = ? WHERE id = ?", (time.time(), conversation))
            if instead_of is not None:
                self._unindex([instead_of])
                self._db.execute("DELETE FROM exchanges WHERE id = ?", (instead_of,))
            return self._insert(conversation, exchange)

    def update(self, exchange: Exchange, id: int) -> None:
        """Write what changed of an exchange that was appended.

        Raises:
            GoneError: it was removed in another window, or deleted with its conversation.
        """
        with self._write():
            found = self._db.execute("SELECT conversation FROM exchanges WHERE id = ?", (id,)).fetchone()
            if found is None:
                raise GoneError("this turn was deleted in another window")
            self.check_there(*found)
            self._db.execute(
                "UPDATE exchanges SET prompt = ?, state = ?, reply = ?, mark = ?, answer = ?, details = ?, "
                "indexed = 0 WHERE id = ?",
                (*columns(exchange), id),
            )
            self._index(id)

    def prompts(self, limit: int = 200) -> list[str]:
        """The last prompts of all conversations, oldest first."""
        with self._errors():
            rows = self._db.execute(
                "SELECT e.prompt FROM exchanges e JOIN conversations c ON c.id = e.conversation "
                "WHERE c.deleted IS NULL ORDER BY e.id DESC LIMIT ?",
                (limit,),
            ).fetchall()
            return [prompt for (prompt,) in reversed(rows)]

    # --- The file

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            kind = BusyError if busy else StoreError
            raise kind(f"conversations cannot be kept in {self.path}: {_reason(error)}") from error

    @contextlib.contextmanager
    def _write(self) -> Iterator[None]:
        """One transaction: what is in it is on the disk when it ends, or never was."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite itself takes back what found the disk full
                    self._db.execute("ROLLBACK")
                raise

    def _open(self) -> None:
        self._db.create_function("holds", 2, holds, deterministic=True)
        self._db.create_function("folded", 1, folded, deterministic=True)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        with self._write():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"{self.path} was written by a newer edgechat (its version is {version}, this one "
                    f"reads up to {len(MIGRATIONS)}): use that one, or move the file away"
                )
            for script in MIGRATIONS[version:]:
                for statement in script.split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            self._fts = self._open_index()
        self._purge(self._lost())

    def _lost(self) -> tuple[int, ...]:
        """Ids of deleted conversations that no window can bring back: the one that deleted it was killed."""
        deleted = self._db.execute("SELECT id, deleted FROM conversations WHERE deleted NOTNULL").fetchall()
        alone = bool(deleted) and self._is_alone()
        return tuple(id for id, at in deleted if alone or at < time.time() - KEPT_DELETED)

    def _is_alone(self) -> bool:
        """Whether no other window has the file open: else it cannot leave WAL mode."""
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            (mode,) = self._db.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.OperationalError:  # it is locked
            return False
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {PATIENCE * 1e3:.0f}")
        self._db.execute("PRAGMA journal_mode = WAL")
        return bool(mode == "delete")

    def _open_index(self) -> bool:
        """Make the full-text index where this SQLite can, and add what was written where it could not."""
        try:
            self._db.execute(
                "CREATE VIRTUAL TABLE IF NOT EXISTS said "
                "USING fts5(prompt, reply, answer, tokenize='trigram')"
            )
            self._db.execute("SELECT rowid FROM said LIMIT 1")
        except sqlite3.OperationalError:  # without FTS5, or older than its trigrams
            return False
        self._fts = True
        for (id,) in self._db.execute(UNINDEXED).fetchall():
            self._index(id)
        return True

    def _index(self, exchange: int) -> None:
        if self._fts:
            self._db.execute("DELETE FROM said WHERE rowid = ?", (exchange,))
            self._db.execute(
                "INSERT INTO said (rowid, prompt, reply, answer) SELECT id, folded(prompt), folded(reply), "
                "folded(coalesce(answer, '')) FROM exchanges WHERE id = ?",
                (exchange,),
            )
            self._db.execute("UPDATE exchanges SET indexed = 1 WHERE id = ?", (exchange,))

    def _unindex(self, exchanges: list[int]) -> None:
        if self._fts:
            self._db.executemany("DELETE FROM said WHERE rowid = ?", [(id,) for id in exchanges])

    def _insert(self, conversation: int, exchange: Exchange) -> int:
        row = self._db.execute(
            "INSERT INTO exchanges (conversation, prompt, state, reply, mark, answer, details) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (conversation, *columns(exchange)),
        )
        assert row.lastrowid is not None
        self._index(row.lastrowid)
        return row.lastrowid

    def _purge(self, conversations: tuple[int, ...]) -> None:
        if not conversations:
            return
        with self._write():
            for id in conversations:  # one that another window restored stays
                if self._db.execute(
                    "SELECT 1 FROM conversations WHERE id = ? AND deleted NOTNULL", (id,)
                ).fetchone():
                    rows = self._db.execute("SELECT id FROM exchanges WHERE conversation = ?", (id,))
                    self._unindex([row for (row,) in rows.fetchall()])
                    self._db.execute("DELETE FROM conversations WHERE id = ?", (id,))
        with contextlib.suppress(sqlite3.OperationalError):  # another window may be reading
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # out of the log of writes too

    # --- Search

    def _containing(self, term: str) -> set[int]:
        """Ids of the conversations that hold `term`, whatever the case."""
        sought = folded(term)
        if self._fts and len(sought) >= _TRIGRAM:
            said = "SELECT rowid FROM said WHERE said MATCH ?"
            wanted = '"' + sought.replace('"', '""') + '"'
        else:
            all_said = "prompt || char(10) || reply || char(10) || coalesce(answer, '')"
            said = f"SELECT id FROM exchanges WHERE holds({all_said}, ?)"
            wanted = term
        rows = self._db.execute(
            f"SELECT conversation FROM exchanges WHERE id IN ({said}) "
            "UNION SELECT id FROM conversations WHERE holds(title, ?)",
            (wanted, term),
        )
        return {id for (id,) in rows}

    def _hit(self, conversation: int, terms: list[str]) -> tuple[str, int | None]:
        """Of the first exchange with the most of `terms`: the line in which the first of them occurs, and
        which exchange it is, from 1 on; none where only the title has them."""
        if not terms:
            return "", None
        wanted = [folded(term) for term in terms]
        best: tuple[str, int | None] = ("", None)
        most = 0
        rows = self._db.execute(
            "SELECT prompt, reply, coalesce(answer, '') FROM exchanges WHERE conversation = ? ORDER BY id",
            (conversation,),
        )
        for turn, texts in enumerate(rows, start=1):
            said = folded("\n".join(texts))
            held = [term for term in wanted if term in said]
            if len(held) > most:
                best, most = (excerpt(texts, held[0]), turn), len(held)
            if most == len(wanted):
                break
        return best


def _reason(error: sqlite3.Error | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # SQLite's words for damage may name an inner table. Python has no class of its own for it.
    return f"the file is damaged ({error})" if type(error) is sqlite3.DatabaseError else str(error)


def title_of(text: str) -> str:
    """A title that says `text`, a prompt or what a user wrote: one short line."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE else line[: TITLE - 1].rstrip() + "…"
