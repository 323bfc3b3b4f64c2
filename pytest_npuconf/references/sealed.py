"""A sealed JSON file: sorted keys, every field required with its type, and a digest over all the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_npuconf.errors import BaselineError, OldBaselineError

DIGEST = "digest"


def digest(values: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of ``values`` without its own digest."""
    return sha256_of_json({key: value for key, value in values.items() if key != DIGEST})


def sha256_of_json(value: Any) -> str:
    """sha256 of the canonical JSON of a value: sorted keys, UTF-8."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Layout:
    """What a kind of sealed file must hold.

    Attributes:
        noun: what the file is, in messages: ``a baseline``.
        version: the schema version that is read and written.
        fields: every other field with its type: nothing is optional, so that nothing can be lost without notice.
        renew, again: how to mend a file of another version, and a damaged one.
    """

    noun: str
    version: int
    fields: Mapping[str, type]
    renew: str
    again: str

    def to_text(self, values: Mapping[str, Any]) -> str:
        """The JSON text of ``values`` (without version and digest), sealed."""
        whole = {"schema_version": self.version, **values}
        return json.dumps({**whole, DIGEST: digest(whole)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def values(self, path: Path, text: str) -> dict[str, Any]:
        """The fields of a file's text, checked; ``path`` is for messages.

        Raises:
            BaselineError: not JSON, of another schema version, a field too few or too many or of another type, or edited.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.damaged(path, f"not JSON: {error}") from error
        if not isinstance(values, dict):
            raise self.damaged(path, f"holds {type(values).__name__}, not an object")
        version = values.get("schema_version")
        if type(version) is not int or version != self.version:
            raise OldBaselineError(
                f"{path}: schema_version is {version!r}, this pytest-npuconf reads {self.version}", mend=self.renew
            )
        wanted = {"schema_version": int, **self.fields, DIGEST: str}
        for name, kind in wanted.items():
            if not isinstance(values.get(name), kind):
                raise self.damaged(path, f"{name} is {'missing' if name not in values else 'not of its type'}")
        if more := sorted(values.keys() - wanted):
            raise self.damaged(path, f"{more[0]} is no field of {self.noun}")
        try:
            whole = digest(values) == values[DIGEST]
        except UnicodeEncodeError as error:
            raise self.damaged(path, f"holds text that is not Unicode: {error}") from error
        if not whole:
            raise self.damaged(path, f"{DIGEST} does not fit the rest: it was edited")
        return values

    def damaged(self, path: Path, what: str) -> BaselineError:
        """The error for a file that cannot be used."""
        return BaselineError(f"{path}: {what}", mend=self.again)


def text_of(path: Path) -> str:
    """The file's text.

    Raises:
        BaselineError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BaselineError(f"{path}: cannot be read: {error}", mend=f"ls -l {path}") from error
