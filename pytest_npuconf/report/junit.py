"""JUnit: the type of a failure. The properties of a test case are in :mod:`pytest_npuconf.records`."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from xml.etree import ElementTree

from pytest_npuconf.files import write_atomically

PROPERTY = "npuconf.verdict"


def set_failure_types(path: Path) -> None:
    """Give each failure of a check its verdict as ``type``: dashboards tell ``fail`` from ``inconclusive`` by it.

    pytest writes the file and leaves the attribute out; the file is replaced atomically.
    """
    path = path.expanduser()
    if not path.is_file():
        return
    tree = ElementTree.parse(path)
    for case in tree.iter("testcase"):
        verdicts = [p.get("value", "") for p in case.iter("property") if p.get("name") == PROPERTY]
        for failure in case.iter("failure"):
            failure.set("type", next((v for v in verdicts if v in ("fail", "inconclusive")), "error"))
    text = io.BytesIO()
    tree.write(text, encoding="utf-8", xml_declaration=True)
    write_atomically(path, text.getvalue(), mode=stat.S_IMODE(path.stat().st_mode))
