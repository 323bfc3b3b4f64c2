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
from pytest_npuconf.files import write_output
from pytest_npuconf.report.page.compare import Comparison, compare
from pytest_npuconf.report.page.compression import compression
from pytest_npuconf.report.page.gallery import Gallery, gallery_of
from pytest_npuconf.report.page.history import History, history
from pytest_npuconf.report.page.lines import Line, line_of
from pytest_npuconf.report.page.matrix import FaultMatrix
from pytest_npuconf.report.page.view import ModelView, cut, shortened, view_of
from pytest_npuconf.report.pictures.drawing import MEND, Picture
from pytest_npuconf.report.reading import Results
from pytest_npuconf.report.run import run_of

MOST_BYTES = 2_000_000
SHORTER = (300, 60, 12, 3)  # entries of a list, one after the other where a page is too large
Named = tuple[str, Results]


@dataclass
class Page:
    """What the template is given."""

    results: Results
    models: list[ModelView]
    galleries: dict[str, Gallery]
    own: list[Line]
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
    own = [record for record in results["checks"] if record["model"] not in results["models"]]
    page.own = [line_of(record, decides=False) for record in own]
    if earlier:
        latest = max(earlier, key=lambda one: one[1]["created"])
        page.comparison = compare(latest[1], results, (latest[0], name))
    for number, model in enumerate(results["models"], 1):
        having = [one for one in earlier if model in one[1]["models"]]
        if len(having) > 1:
            page.histories.append(history(model, [*having, run], f"h{number}"))
    return _fitting(page)


def _fitting(page: Page) -> str:
    """Within its size: first the longest lists are shortened, then the largest pictures left out. What is left out is said."""
    text = _render(page)
    for most in SHORTER:
        if len(text.encode()) - _drawn(page) <= MOST_BYTES:
            break
        page.models = [shortened(model, most) for model in page.models]
        text = _render(page)
    while (over := len(text.encode()) - MOST_BYTES) > 0:
        pictures = [(picture, gallery) for gallery in page.galleries.values() for picture in gallery.pictures]
        pictures.sort(key=lambda each: len(each[0].svg))
        if not pictures:
            raise SettingsError(
                f"the page is {len(text.encode()):,} bytes without pictures, above {MOST_BYTES:,}",
                mend="results.json has everything; npuconf report RESULTS.json with fewer models or earlier runs",
            )
        while over > 0 and pictures:
            picture, gallery = pictures.pop()
            gallery.pictures.remove(picture)
            gallery.not_drawn.append(f"{picture.title}: the page would pass {MOST_BYTES:,} bytes")
            over -= len(picture.svg)
        text = _render(page)
    return text


def _drawn(page: Page) -> int:
    return sum(len(picture.svg) for gallery in page.galleries.values() for picture in gallery.pictures)


def _render(page: Page) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, finalize=_cut, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_asset),
    )  # fmt: skip
    script, style = _asset("page.js"), _asset("page.css")
    text = environment.get_template("page.html.j2").render(
        page=page,
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        svg=Markup,
    )
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair is no text


def _cut(value: Any) -> Any:
    """No text of a model, a card or a host is longer on the page than ``LONGEST``."""
    return cut(value) if type(value) is str else value


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
    write_output(path, text.encode(), f"{flag} FILE.html in a folder you can write to")
