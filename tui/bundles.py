"""The bundles of a window: open or loading, the current one, and the second one of a comparison."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from .engine import Engine, Model, bundle_name, list_bundles, manifest_hash, resolve_bundle
from .values import BundleChoice, ReplyOrigin


class Bundles:
    """Engines by the path of their bundle, as the user first wrote it.

    `current` is the path of the bundle that prompts go to, "" for none. In a comparison, `second` is the path
    of the bundle that prompts also go to.
    """

    def __init__(self, paths: Sequence[str] = ()) -> None:
        self.current = paths[0] if paths else ""
        self.second: str | None = None
        self.loading: set[str] = set()
        self._engines: dict[str, Engine] = {}
        self._hashes: dict[str, str] = {}  # the `manifest_hash` of each bundle when its loading began
        self._previous = ""  # the path that was current before

    def __bool__(self) -> bool:
        """Whether any bundle is open."""
        return bool(self._engines)

    def __contains__(self, path: str) -> bool:
        return path in self._engines

    @property
    def engine(self) -> Engine | None:
        """The current bundle, None until it is loaded."""
        return self._engines.get(self.current)

    @property
    def is_waiting(self) -> bool:
        """Whether a bundle that prompts go to is loading."""
        return not self.loading.isdisjoint((self.current, self.second))

    @property
    def ready(self) -> bool:
        """Whether every bundle that prompts go to is loaded, and none is being reloaded."""
        return self.engine is not None and not self.is_waiting

    @property
    def active_engines(self) -> list[Engine]:
        """The bundles that prompts go to, the current one first."""
        paths = [path for path in (self.current, self.second) if path]
        return [self._engines[path] for path in paths if path in self._engines]

    @property
    def title(self) -> str:
        """The names of the bundles that prompts go to."""
        second = f" | {bundle_name(self.second)}" if self.second else ""
        return (bundle_name(self.current) if self.current else "no bundle") + second

    def begin_loading(self, path: str) -> bool:
        """Note that the caller loads this bundle now. False if that is not needed: it is open and unchanged,
        or loading already."""
        if path in self.loading or not self.is_stale(path):
            return False
        self._hashes[path] = manifest_hash(path)
        self.loading.add(path)
        return True

    def is_stale(self, path: str) -> bool:
        """Whether the bundle is not open, or has changed since it was opened."""
        path = self.known_path(path)
        return path not in self._engines or manifest_hash(path) not in ("", self._hashes[path])

    def known_path(self, path: str) -> str:
        """The spelling of `path` under which the same bundle is known, or else `path`."""
        place = resolve_bundle(path)
        known = (*self._engines, *self.loading, self.current)
        return next((other for other in known if other and resolve_bundle(other) == place), path)

    def finish_loading(self, path: str, model: Model) -> None:
        """Add a loaded model."""
        self.loading.discard(path)
        self._hashes.setdefault(path, manifest_hash(path))
        self._engines[path] = Engine(model, bundle_name(path), path)

    def fail_loading(self, path: str) -> None:
        """Note that a bundle could not be loaded. If it was open before, it stays open."""
        self.loading.discard(path)
        if path == self.second and path not in self._engines:
            self.second = None

    def switch(self, path: str) -> None:
        """Make this bundle, which is open or loading, the current one."""
        if path != self.current:
            self._previous, self.current = self.current, path
        if self.second == path:
            self.second = None

    @property
    def fallback(self) -> str:
        """The bundle to use if loading the current one fails: the current or previous one if open, else any
        open one, else the next one that is loading. "" if there is none."""
        kept = (path for path in (self.current, self._previous) if path in self._engines)
        loading = (path for path in self._hashes if path in self.loading)
        return next((path for paths in (kept, self._engines, loading) for path in paths), "")

    def engine_for(self, origin: ReplyOrigin) -> Engine | None:
        """The open bundle that made a reply. Of several copies of it, the one with the same name."""
        same = [e for e in self._engines.values() if e.facts.fingerprint == origin.fingerprint]
        return next((e for e in same if e.facts.name == origin.bundle), next(iter(same), None))

    async def choices(self) -> list[BundleChoice]:
        """Bundles to choose from: those that are open, then those in and below the current folder."""
        engines = dict(self._engines)

        def list_choices() -> list[BundleChoice]:
            opened = [
                BundleChoice(path, engine.facts.name, engine.facts.label, resolve_bundle(path))
                for path, engine in engines.items()
            ]
            places = {choice.place for choice in opened}
            return [*opened, *(choice for choice in list_bundles(Path()) if choice.place not in places)]

        return await asyncio.to_thread(list_choices)
