"""Notice that the code or the settings of the project changed."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from watchfiles import Change, DefaultFilter, watch

SETTINGS = frozenset({".env", ".flaskenv"})


class CodeFilter(DefaultFilter):
    """Python files and settings; templates and static files are read anew by Flask itself."""

    def __call__(self, change: Change, path: str) -> bool:
        """Whether a change of `path` needs a restart."""
        file = Path(path)
        return (file.suffix == ".py" or file.name in SETTINGS) and super().__call__(change, path)


class Watcher:
    """Calls back, in a thread, with the names of changed files; a context manager."""

    def __init__(
        self, project: Path, folders: Sequence[Path], on_change: Callable[[list[str]], None]
    ) -> None:
        """Watch `folders` and what is below them, and the settings in `project`."""
        self._on_change = on_change
        self._project = project
        self._done = threading.Event()
        # The project's folder alone, not what is below it: .venv and instance/ are there, too.
        self._threads = [
            threading.Thread(target=self._watch, args=(folders, True), daemon=True),
            threading.Thread(target=self._watch, args=([project], False), daemon=True),
        ]

    def __enter__(self) -> "Watcher":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, folders: Sequence[Path], recursive: bool) -> None:
        for changes in watch(
            *folders, watch_filter=CodeFilter(), stop_event=self._done, recursive=recursive
        ):
            self._on_change(sorted({self._short(path) for _, path in changes}))

    def _short(self, path: str) -> str:
        file = Path(path)
        return str(file.relative_to(self._project) if file.is_relative_to(self._project) else file)
