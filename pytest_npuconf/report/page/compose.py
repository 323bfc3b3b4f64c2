"""One page of everything: text and pictures in a single file that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.files import write_atomically
from pytest_npuconf.report.page.compare import Comparison, compare
from pytest_npuconf.report.page.compression import compression
from pytest_npuconf.report.page.gallery import Gallery, gallery_of
from pytest_npuconf.report.page.history import History, history
from pytest_npuconf.report.page.matrix import FaultMatrix
from pytest_npuconf.report.page.view import ModelView, measured, view_of, word_of
from pytest_npuconf.report.pictures.drawing import MEND, Picture
from pytest_npuconf.report.reading import Results
from pytest_npuconf.report.run import run_of

MOST_BYTES = 2_000_000
Named = tuple[str, Results]


@dataclass
class Page:
    """What the template is given."""

    results: Results
    models: list[ModelView]
    galleries: dict[str, Gallery]
    own: list[Any]
    comparison: Comparison | None
    histories: list[History]
    matrices: list[FaultMatrix]
    compression: Picture | None


def require() -> None:
    """That what a page needs is installed.

    Raises:
        SettingsError: jinja2 or matplotlib is not.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"the HTML report needs {error.name}, which is not installed", mend=MEND) from error


def compose(
    run: Named,
    earlier: Sequence[Named] = (),
    matrices: Sequence[FaultMatrix] = (),
    announce: Callable[[str], None] = lambda _: None,
) -> str:
    """The HTML of one run; with earlier runs a comparison with the latest of them, with two or more a history too.

    Raises:
        SettingsError: jinja2 or matplotlib is not installed; an earlier run is of other models.
    """
    require()
    name, results = run
    page = Page(results, [], {}, [], None, [], list(matrices), compression([*earlier, run], "compression"))
    for number, model in enumerate(results["models"], 1):
        announce(f"report: {model}")
        found = run_of(results, model)
        page.models.append(view_of(found, f"m{number}"))
        page.galleries[f"m{number}"] = gallery_of(found, f"m{number}")
    page.own = [(record, word_of(record), measured(record)) for record in results["checks"] if not record["model"]][
        :200
    ]
    if earlier:
        latest = max(earlier, key=lambda one: one[1]["created"])
        page.comparison = compare(latest[1], results, (latest[0], name))
    if len(earlier) > 1:
        common = [model for model in results["models"] if all(model in each["models"] for _, each in earlier)]
        page.histories = [history(model, [*earlier, run], f"h{i}") for i, model in enumerate(common, 1)]
    return _fitting(page)


def _fitting(page: Page) -> str:
    """Without so many pictures that the page would pass its size; what is left out is said."""
    text = _render(page)
    while len(text.encode()) > MOST_BYTES:
        fullest = max(page.galleries.values(), key=lambda gallery: len(gallery.pictures), default=None)
        if fullest is None or not fullest.pictures:
            raise SettingsError(
                f"the page is {len(text.encode()):,} bytes without pictures, above {MOST_BYTES:,}",
                mend="npuconf report with fewer models or fewer earlier runs",
            )
        dropped = [fullest.pictures.pop() for _ in range(min(4, len(fullest.pictures)))]
        fullest.not_drawn += [f"{picture.title}: the page would pass {MOST_BYTES:,} bytes" for picture in dropped]
        text = _render(page)
    return text


def _render(page: Page) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_asset),
    )  # fmt: skip
    script, style = _asset("page.js"), _asset("page.css")
    return environment.get_template("page.html.j2").render(
        page=page,
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        style_hash=_hash(style),
        svg=Markup,
    )


def _asset(name: str) -> str:
    return resources.files("pytest_npuconf.report.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names what may run: nothing that a model wrote has it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def write_page(path: Path, text: str, flag: str) -> None:
    """Write atomically: the file is whole or untouched. ``flag`` is the option that named it.

    Raises:
        SettingsError: the file cannot be written.
    """
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise SettingsError(f"{path}: {error}", mend=f"{flag} FILE.html in a folder you can write to") from error
