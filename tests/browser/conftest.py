"""A real headless browser, and pages as npuconf report writes them."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from pytest_npuconf.report.page.compose import compose
from pytest_npuconf.report.reading import read_results

DATA = Path(__file__).parent.parent / "data" / "card"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser():
    """Chromium of the host: ``BROWSER`` names another."""
    found = os.environ.get("BROWSER") or next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(f"no {' or '.join(BROWSERS)} on this host: apt-get install chromium, or BROWSER=/path/to/it")
    with sync_playwright() as playwright:
        # as root its own sandbox cannot be used; without the other flags it asks its maker's hosts in the background
        flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        running = playwright.chromium.launch(executable_path=found, args=flags)
        yield running
        running.close()


@pytest.fixture
def results():
    """A run of tests/data/card by name, as a copy that a test may change."""

    def read(name):
        return copy.deepcopy(read_results(DATA / f"{name}.json"))

    return read


@pytest.fixture
def visit(browser, tmp_path):
    """Open a page of these results; ``seen`` has every request, console message and error of it."""
    contexts = []

    def open_page(results, *, earlier=(), matrices=(), text=None, **context):
        path = tmp_path / "report.html"
        path.write_text(text or compose(("r.json", results), earlier, matrices), encoding="utf-8")
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.seen = {"requests": [], "console": [], "errors": []}
        page.on("request", lambda request: page.seen["requests"].append(request.url))
        page.on("console", lambda message: page.seen["console"].append(message.text))
        page.on("pageerror", lambda error: page.seen["errors"].append(str(error)))
        page.goto(path.as_uri())
        page.address = path.as_uri()
        return page

    yield open_page
    for context in contexts:
        context.close()


def as_file(path, results):
    """Results as a file, for what reads them from one."""
    path.write_text(json.dumps(results, ensure_ascii=False), encoding="utf-8")
    return path
