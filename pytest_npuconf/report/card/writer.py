"""A card while it is written: headings, sentences and captioned tables in one language or both, every table with its labels."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_npuconf.report.card import phrases
from pytest_npuconf.report.card.text import escaped, fenced, row_of
from pytest_npuconf.report.run import Run


class Writer:
    """Collects the lines of one card."""

    def __init__(self, run: Run, language: str) -> None:
        self.run, self.language = run, language
        self.labels = ", ".join(escaped(label) for label in run.summary["labels"])
        self._lines: list[str] = []
        self._tables = 0

    @property
    def text(self) -> str:
        """The card."""
        return "\n".join(self._lines).rstrip("\n") + "\n"

    def word(self, key: str, **values: object) -> str:
        """A word or name of this page's language."""
        return phrases.words(self.language, key, **values)

    def heading(self, depth: int, text: str) -> None:
        """``text`` is escaped already."""
        self._lines += [f"{'#' * depth} {text}", ""]

    def say(self, key: str, **values: object) -> None:
        """A paragraph in each language."""
        for sentence in phrases.sentences(self.language, key, **values):
            self._lines += [sentence, ""]

    def points(self, lines: Sequence[str]) -> None:
        """A list; the lines are escaped already."""
        self._lines += [f"- {line}" for line in lines] + [""]

    def sentences(self, *keys: str, **values: object) -> list[str]:
        """The sentences of several keys, for ``points``."""
        return [said for key in keys for said in phrases.sentences(self.language, key, **values)]

    def caption(self, text: str) -> None:
        """A caption with the labels of the run."""
        self._lines += [f"**{text}{f' — {self.labels}' if self.labels else ''}**", ""]

    def table(self, caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A numbered table. ``header``: keys of words, or texts that are no key; cells are escaped already."""
        self._tables += 1
        self.caption(f"{self.word('table')} {self._tables}. {caption}")
        names = [self.word(name) if name in phrases.WORDS else name for name in header]
        self._lines += [row_of(names), row_of(["---"] * len(names)), *(row_of(row) for row in rows), ""]

    def fence(self, text: str, info: str = "text") -> None:
        """``text`` as it stands."""
        self._lines += [*fenced(text, info), ""]
