"""Conversations on disk: one SQLite file, which several windows can use at once.

Every write is one transaction in WAL mode, so that a process killed at any moment leaves all of it or
nothing. A connection belongs to the thread that opened it; `store_thread.py` provides the thread.
"""

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgechat.runtime import EdgeChatError

from .records import exchange_from_row, exchange_to_row, without_surrogates
from .text_search import contains_folded, excerpt, fold_case
from .titles import title_of
from .values import ConversationSummary, Exchange

#: Scripts that migrate the file from version n to n + 1 (`PRAGMA user_version`). Never change a released one.
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
    """,  # since this version, the index has folded text
    """
    CREATE INDEX unindexed ON exchanges (id) WHERE NOT indexed;
    """,  # for the query at every start
)
#: The exchanges that are not in the full-text index.
UNINDEXED_QUERY = "SELECT id FROM exchanges WHERE NOT indexed"
#: How long until a conversation deleted by another window is purged: that window may still be open, and
#: restore it.
PURGE_DELAY_SECONDS = 24 * 3600.0
#: How long to wait for another window's write.
BUSY_TIMEOUT_SECONDS = 5.0
#: The error about a conversation that another window deleted.
GONE_MESSAGE = "This conversation was deleted in another window"
#: Maximum number of rows in a list: more take too long to draw.
MAX_LISTED = 500
#: The shortest term that SQLite's trigram index can find. Shorter terms need a full scan.
_MIN_INDEXED_CHARACTERS = 3


class StoreError(EdgeChatError):
    """Conversations cannot be saved or read. The message names the file."""


class BusyError(StoreError):
    """Another window or program has locked the file."""


class UnwritableError(StoreError):
    """The file is read-only or cannot be created. `why` names the reason and the path in a few words, and
    `failed` is what cannot be done: "read", "saved" or both."""

    def __init__(self, why: str, failed: str) -> None:
        super().__init__(f"conversations cannot be {failed}: {why}")
        self.why = why


class DamagedError(StoreError):
    """One conversation cannot be read. The message names it."""


class GoneError(StoreError):
    """The conversation or exchange was deleted in another window."""


class Store:
    """The stored conversations, newest first.

    Raises:
        StoreError: from any method, if the file cannot be used.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the file, and create or migrate it. ":memory:" saves nothing."""
        self.path = str(path)
        self._deleted: set[int] = set()  # deleted in this window, and not yet purged
        with self._errors("read or saved"):
            if self.path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Purge the conversations that were deleted in this window, and close the file."""
        with self._errors("saved"):
            try:
                self._purge(tuple(self._deleted))
            finally:
                self._db.close()

    # --- Conversations

    def create(self, title: str, bundle: str, exchanges: Sequence[Exchange] = ()) -> tuple[int, list[int]]:
        """Add a conversation with these exchanges. Returns its id and theirs."""
        with self._write():
            row = self._db.execute(
                "INSERT INTO conversations (title, bundle, updated) VALUES (?, ?, ?)",
                (without_surrogates(title), without_surrogates(bundle), time.time()),
            )
            assert row.lastrowid is not None
            return row.lastrowid, [self._insert(row.lastrowid, exchange) for exchange in exchanges]

    def find(self, query: str = "") -> list[ConversationSummary]:
        """The conversations that contain every word of `query`, in the title or in the exchanges, newest
        first.

        The first `MAX_LISTED` of them have an excerpt.
        """
        terms = without_surrogates(query).split()
        with self._errors():
            ids: set[int] | None = None
            for term in terms:
                found = self._find_conversations(term)
                ids = found if ids is None else ids & found
            rows = self._db.execute(
                "SELECT c.id, c.title, c.bundle, c.updated, count(e.id) FROM conversations c "
                "LEFT JOIN exchanges e ON e.conversation = c.id WHERE c.deleted IS NULL "
                "GROUP BY c.id ORDER BY c.updated DESC, c.id DESC"
            )
            chosen = [row for row in rows if ids is None or row[0] in ids]
            return [
                ConversationSummary(
                    id,
                    title,
                    bundle,
                    updated,
                    count,
                    *self._find_best_match(id, terms if n < MAX_LISTED else []),
                )
                for n, (id, title, bundle, updated, count) in enumerate(chosen)
            ]

    def title(self, conversation: int) -> str | None:
        """The title of a conversation, None if it was purged."""
        with self._errors():
            query = "SELECT title FROM conversations WHERE id = ?"
            found = self._db.execute(query, (conversation,)).fetchone()
        return found and str(found[0])

    def load(self, conversation: int) -> tuple[str, list[Exchange]]:
        """The title and the exchanges of a conversation.

        Raises:
            GoneError: it was purged.
            DamagedError: it cannot be read.
        """
        title = self.title(conversation)
        if title is None:
            raise GoneError(GONE_MESSAGE)
        with self._errors():
            rows = self._db.execute(
                "SELECT id, prompt, state, mark, answer, details FROM exchanges "
                "WHERE conversation = ? ORDER BY id",
                (conversation,),
            )
            try:
                return title, [exchange_from_row(row) for row in rows]
            except (ValueError, TypeError, RecursionError) as error:
                which = f"the conversation {title_of(title)!r} in {self.path}"
                raise DamagedError(f"{which} is damaged: {type(error).__name__} {error}") from error

    def rename(self, conversation: int, title: str) -> None:
        """Change the title of a conversation.

        Raises:
            GoneError: it was deleted in another window.
        """
        with self._write():
            self.check_not_deleted(conversation)
            self._db.execute(
                "UPDATE conversations SET title = ? WHERE id = ?", (without_surrogates(title), conversation)
            )

    def delete(self, conversation: int) -> None:
        """Delete a conversation. `restore` can undo this until the store is closed.

        Raises:
            GoneError: it was deleted in another window.
        """
        with self._write():
            self.check_not_deleted(conversation)
            self._db.execute("UPDATE conversations SET deleted = ? WHERE id = ?", (time.time(), conversation))
        self._deleted.add(conversation)

    def restore(self, conversation: int) -> None:
        """Undo `delete`.

        Raises:
            GoneError: the conversation was purged in the meantime.
        """
        with self._write():
            change = "UPDATE conversations SET deleted = NULL WHERE id = ?"
            if not self._db.execute(change, (conversation,)).rowcount:
                raise GoneError(GONE_MESSAGE)
        self._deleted.discard(conversation)

    def deleted_titles(self) -> dict[int, str]:
        """The titles of the conversations that `restore` can bring back, by id, the latest deleted last."""
        with self._errors():
            rows = self._db.execute(
                "SELECT id, title FROM conversations WHERE deleted NOTNULL ORDER BY deleted"
            )
            return {id: title for id, title in rows if id in self._deleted}

    def check_not_deleted(self, conversation: int) -> None:
        """Check that a conversation can be changed. One that was deleted in this window can be; one that
        another window deleted cannot.

        Raises:
            GoneError: another window deleted the conversation.
        """
        with self._errors():
            query = "SELECT deleted FROM conversations WHERE id = ?"
            found = self._db.execute(query, (conversation,)).fetchone()
        if found is None or (found[0] is not None and conversation not in self._deleted):
            raise GoneError(GONE_MESSAGE)

    # --- Exchanges

    def append(self, conversation: int, exchange: Exchange, *, instead_of: int | None = None) -> int:
        """Add an exchange at the end, and delete the exchange `instead_of`. Returns the new id.

        Raises:
            GoneError: the conversation was deleted in another window.
        """
        with self._write():
            self.check_not_deleted(conversation)
            self._db.execute("UPDATE conversations SET updated = ? WHERE id = ?", (time.time(), conversation))
            if instead_of is not None:
                self._unindex([instead_of])
                self._db.execute("DELETE FROM exchanges WHERE id = ?", (instead_of,))
            return self._insert(conversation, exchange)

    def update(self, exchange: Exchange, id: int) -> None:
        """Replace the contents of an exchange.

        Raises:
            GoneError: another window deleted the exchange or its conversation.
        """
        with self._write():
            found = self._db.execute("SELECT conversation FROM exchanges WHERE id = ?", (id,)).fetchone()
            if found is None:
                raise GoneError("This exchange was deleted in another window")
            self.check_not_deleted(*found)
            self._db.execute(
                "UPDATE exchanges SET prompt = ?, state = ?, reply = ?, mark = ?, answer = ?, details = ?, "
                "indexed = 0 WHERE id = ?",
                (*exchange_to_row(exchange), id),
            )
            self._index(id)

    def latest_prompts(self, limit: int = 200) -> list[str]:
        """The latest prompts of all conversations, oldest first."""
        with self._errors():
            rows = self._db.execute(
                "SELECT e.prompt FROM exchanges e JOIN conversations c ON c.id = e.conversation "
                "WHERE c.deleted IS NULL ORDER BY e.id DESC LIMIT ?",
                (limit,),
            ).fetchall()
            return [prompt for (prompt,) in reversed(rows)]

    # --- The file

    @contextlib.contextmanager
    def _errors(self, failed: str = "read") -> Iterator[None]:
        """Turn an error of SQLite or the system into a `StoreError`, which says what `failed`."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if why := _why_unwritable(error, Path(self.path)):
                raise UnwritableError(why, failed) from error
            kind = BusyError if _sqlite_code(error) == sqlite3.SQLITE_BUSY else StoreError
            raise kind(f"conversations cannot be {failed} in {self.path}: {_reason(error)}") from error

    @contextlib.contextmanager
    def _write(self) -> Iterator[None]:
        """A transaction that saves something."""
        with self._errors("saved"), self._transaction():
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction, committed to disk at the end or rolled back."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself rolls back if the disk is full
                self._db.execute("ROLLBACK")
            raise

    def _open(self) -> None:
        self._db.create_function("contains_folded", 2, contains_folded, deterministic=True)
        self._db.create_function("fold_case", 1, fold_case, deterministic=True)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA secure_delete = ON")  # overwrite deleted contents
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"{self.path} was written by a newer edgechat (file version {version}, this edgechat "
                    f"reads up to version {len(MIGRATIONS)}): use the newer edgechat, or move the file away"
                )
            for script in MIGRATIONS[version:]:
                for statement in script.split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            self._fts = self._open_index()
        self._purge(self._orphaned_ids())

    def _orphaned_ids(self) -> tuple[int, ...]:
        """Deleted conversations that no window can restore, since the window that deleted them was killed."""
        deleted = self._db.execute("SELECT id, deleted FROM conversations WHERE deleted NOTNULL").fetchall()
        alone = bool(deleted) and self._is_only_window()
        return tuple(id for id, at in deleted if alone or at < time.time() - PURGE_DELAY_SECONDS)

    def _is_only_window(self) -> bool:
        """Whether no other window has the file open. Only then can the file leave WAL mode."""
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            (mode,) = self._db.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.OperationalError:  # locked
            return False
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1e3:.0f}")
        self._db.execute("PRAGMA journal_mode = WAL")
        return bool(mode == "delete")

    def _open_index(self) -> bool:
        """Create the full-text index if this SQLite supports it, and add missing exchanges to it.

        Returns:
            Whether there is an index.
        """
        try:
            self._db.execute(
                "CREATE VIRTUAL TABLE IF NOT EXISTS said "
                "USING fts5(prompt, reply, answer, tokenize='trigram')"
            )
            self._db.execute("SELECT rowid FROM said LIMIT 1")
        except sqlite3.OperationalError:  # no FTS5, or no trigram tokenizer
            return False
        self._fts = True
        for (id,) in self._db.execute(UNINDEXED_QUERY).fetchall():
            self._index(id)
        return True

    def _index(self, exchange: int) -> None:
        if self._fts:
            self._db.execute("DELETE FROM said WHERE rowid = ?", (exchange,))
            self._db.execute(
                "INSERT INTO said (rowid, prompt, reply, answer) SELECT id, fold_case(prompt), "
                "fold_case(reply), fold_case(coalesce(answer, '')) FROM exchanges WHERE id = ?",
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
            (conversation, *exchange_to_row(exchange)),
        )
        assert row.lastrowid is not None
        self._index(row.lastrowid)
        return row.lastrowid

    def _purge(self, conversations: tuple[int, ...]) -> None:
        if not conversations:
            return
        with self._transaction():
            for id in conversations:  # skip those that another window restored
                if self._db.execute(
                    "SELECT 1 FROM conversations WHERE id = ? AND deleted NOTNULL", (id,)
                ).fetchone():
                    rows = self._db.execute("SELECT id FROM exchanges WHERE conversation = ?", (id,))
                    self._unindex([row for (row,) in rows.fetchall()])
                    self._db.execute("DELETE FROM conversations WHERE id = ?", (id,))
        with contextlib.suppress(sqlite3.OperationalError):  # another window may be reading
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # remove it from the write-ahead log too

    # --- Search

    def _find_conversations(self, term: str) -> set[int]:
        """The ids of the conversations that contain `term`, ignoring case."""
        term_folded = fold_case(term)
        if self._fts and len(term_folded) >= _MIN_INDEXED_CHARACTERS:
            matching = "SELECT rowid FROM said WHERE said MATCH ?"
            pattern = '"' + term_folded.replace('"', '""') + '"'
        else:
            texts = "prompt || char(10) || reply || char(10) || coalesce(answer, '')"
            matching = f"SELECT id FROM exchanges WHERE contains_folded({texts}, ?)"
            pattern = term
        rows = self._db.execute(
            f"SELECT conversation FROM exchanges WHERE id IN ({matching}) "
            "UNION SELECT id FROM conversations WHERE contains_folded(title, ?)",
            (pattern, term),
        )
        return {id for (id,) in rows}

    def _find_best_match(self, conversation: int, terms: list[str]) -> tuple[str, int | None]:
        """Find the first exchange that contains the most of `terms`.

        Returns:
            Its line with the first of the terms, and its position from 1 on; "" and None if only the title
            has the terms.
        """
        if not terms:
            return "", None
        sought = [fold_case(term) for term in terms]
        best: tuple[str, int | None] = ("", None)
        most = 0
        rows = self._db.execute(
            "SELECT prompt, reply, coalesce(answer, '') FROM exchanges WHERE conversation = ? ORDER BY id",
            (conversation,),
        )
        for position, texts in enumerate(rows, start=1):
            text = fold_case("\n".join(texts))
            found = [term for term in sought if term in text]
            if len(found) > most:
                best, most = (excerpt(texts, found[0]), position), len(found)
            if most == len(sought):
                break
        return best


def _sqlite_code(error: sqlite3.Error | OSError) -> int:
    """SQLite's primary result code, 0 for other errors."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _why_unwritable(error: sqlite3.Error | OSError, path: Path) -> str:
    """Why the file cannot be written, "" if the error is about something else. The path comes last, since a
    narrow status line cuts the end."""
    if isinstance(error, OSError):
        return {
            errno.EACCES: f"no permission to create {path}",
            errno.EPERM: f"no permission to create {path}",
            errno.EROFS: f"read-only file system at {path}",
            errno.EEXIST: f"not a folder: {path.parent}",
            errno.ENOTDIR: f"not a folder: {path.parent}",
        }.get(error.errno or 0, "")
    if _sqlite_code(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return f"read-only file {path}"
    if _sqlite_code(error) != sqlite3.SQLITE_CANTOPEN:
        return ""
    if os.access(path.parent, os.W_OK):
        return f"cannot open or create {path}"
    return f"read-only folder {path.parent}"


def _reason(error: sqlite3.Error | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # SQLite's message about damage may name an internal table. Python has no exception class for damage.
    return f"the file is damaged ({error})" if type(error) is sqlite3.DatabaseError else str(error)
