"""The bundles of a window: those that are open or on their way, the one that one talks to, the one beside."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from .engine import Engine, Model, bundles_near, name_of, place_of, stamp_of
from .values import BundleChoice, Made


class Bundles:
    """Engines by the path of their bundle, as it was first written. `current` is the path that prompts go to,
    "" for none; `beside` is that of the bundle they go to as well."""

    def __init__(self, paths: Sequence[str] = ()) -> None:
        self.current = paths[0] if paths else ""
        self.beside: str | None = None
        self.loading: set[str] = set()
        self._engines: dict[str, Engine] = {}
        self._stamps: dict[str, str] = {}  # of each bundle, when its loading began
        self._before = ""  # the one that was talked to before

    def __bool__(self) -> bool:
        """Whether any is open."""
        return bool(self._engines)

    def __contains__(self, path: str) -> bool:
        return path in self._engines

    @property
    def engine(self) -> Engine | None:
        """The bundle that one talks to, None until it is loaded."""
        return self._engines.get(self.current)

    @property
    def coming(self) -> bool:
        """Whether one that a prompt goes to is on its way."""
        return not self.loading.isdisjoint((self.current, self.beside))

    @property
    def ready(self) -> bool:
        """Whether those that a prompt goes to can be asked: they are loaded, and not on their way anew."""
        return self.engine is not None and not self.coming

    @property
    def asked(self) -> list[Engine]:
        """Those that a prompt goes to, the one that one talks to first."""
        paths = [path for path in (self.current, self.beside) if path]
        return [self._engines[path] for path in paths if path in self._engines]

    @property
    def title(self) -> str:
        """What they are called on screen."""
        beside = f" | {name_of(self.beside)}" if self.beside else ""
        return (name_of(self.current) if self.current else "no bundle") + beside

    def wants(self, path: str) -> bool:
        """Whether this bundle is to be loaded now, or anew: another lies there by now. It counts as on its
        way then."""
        if path in self.loading or not self.stale(path):
            return False
        self._stamps[path] = stamp_of(path)
        self.loading.add(path)
        return True

    def stale(self, path: str) -> bool:
        """Whether the bundle there is not open, or was another when it was opened."""
        path = self.spelled(path)
        return path not in self._engines or stamp_of(path) not in ("", self._stamps[path])

    def spelled(self, path: str) -> str:
        """The path as it was written for the same bundle before, where it was."""
        place = place_of(path)
        known = (*self._engines, *self.loading, self.current)
        return next((other for other in known if other and place_of(other) == place), path)

    def loaded(self, path: str, model: Model) -> None:
        """A model has come."""
        self.loading.discard(path)
        self._stamps.setdefault(path, stamp_of(path))
        self._engines[path] = Engine(model, name_of(path), path)

    def failed(self, path: str) -> None:
        """A model will not come."""
        self.loading.discard(path)
        if path == self.beside and path not in self._engines:  # else the one that was open goes on
            self.beside = None

    def switch(self, path: str) -> None:
        """From now on prompts go to this one, which is open or will be."""
        if path != self.current:
            self._before, self.current = self.current, path
        if self.beside == path:
            self.beside = None

    @property
    def fallback(self) -> str:
        """The path of one that is open: the one that one talks to, or did before, where it is. Where none is,
        that of the next that comes, "" for none."""
        kept = (path for path in (self.current, self._before) if path in self._engines)
        coming = (path for path in self._stamps if path in self.loading)
        return next((path for paths in (kept, self._engines, coming) for path in paths), "")

    def maker(self, made: Made) -> Engine | None:
        """The open one that made a reply: of several that are the same bundle, the one of its name."""
        same = [e for e in self._engines.values() if e.facts.fingerprint == made.fingerprint]
        return next((e for e in same if e.facts.name == made.bundle), next(iter(same), None))

    async def choices(self) -> list[BundleChoice]:
        """Bundles to choose from: those that are open, then those nearby."""
        found = await asyncio.to_thread(bundles_near, Path())
        near = (path for path in found if self.spelled(path) not in self._engines)
        return [
            *(
                BundleChoice(path, engine.facts.name, engine.facts.label)
                for path, engine in self._engines.items()
            ),
            *(BundleChoice(path, name_of(path), "") for path in near),
        ]
