"""What a campaign has done, file by file, so that an interrupted one resumes; results of other conditions are never mixed in."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.files import write_atomically

KEY_FILE = "conditions.json"
DIGITS = 12


@dataclass(frozen=True)
class Task:
    """One run: a fault (empty: the clean model) at one precision."""

    fault: str
    precision: str

    @property
    def spoken(self) -> str:
        """``rope-base-tenth, bfloat16``."""
        return f"{self.fault or 'clean'}, {self.precision}"


class Store:
    """A folder with one file for each run. ``conditions``: everything that a result depends on but for its fault and
    precision, as JSON values; it gives the folder below ``root``."""

    def __init__(self, root: Path, conditions: Mapping[str, Any]) -> None:
        self._root = root
        self.conditions = json.loads(json.dumps(conditions, sort_keys=True))
        self.key = hashlib.sha256(json.dumps(self.conditions, sort_keys=True).encode()).hexdigest()[:DIGITS]
        self.folder = root / self.key

    def open(self, *, anew: bool) -> None:
        """Make the folder; ``anew``: without what an earlier campaign of the same conditions left.

        Raises:
            SettingsError: it cannot be written.
        """
        try:
            if anew and self.folder.is_dir():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / KEY_FILE, _bytes(self.conditions))
        except OSError as error:
            raise SettingsError(f"{self.folder}: {error}", mend="--folder DIR that you can write to") from error

    def put(self, result: Mapping[str, Any], identity: str) -> None:
        """Keep one run's result, whole or not at all. ``identity``: of the fault's own definition.

        Raises:
            SettingsError: it cannot be written.
        """
        path = self._path(Task(result["fault"], result["precision"]))
        try:
            write_atomically(path, _bytes({**result, "identity": identity}))
        except OSError as error:
            raise SettingsError(f"{path}: {error}", mend="--folder DIR that you can write to") from error

    def get(self, task: Task, identity: str) -> dict[str, Any] | None:
        """The result of a run, None when there is none, or when it is of another fault of this name."""
        try:
            found: dict[str, Any] = json.loads(self._path(task).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if found.get("identity") == identity else None

    def others(self) -> list[str]:
        """Folders beside this one, each with what differs there, in words."""
        lines = []
        for path in sorted(self._root.glob(f"*/{KEY_FILE}")):
            if path.parent == self.folder:
                continue
            try:
                theirs = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                theirs = {}
            names = [n for n in sorted({*theirs, *self.conditions}) if theirs.get(n) != self.conditions.get(n)]
            lines.append(f"{path.parent} (differs in {', '.join(names)})")
        return lines

    def _path(self, task: Task) -> Path:
        return self.folder / f"{quote(task.fault, safe='') or '(clean)'}.{task.precision}.json"


def _bytes(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)}\n".encode()
