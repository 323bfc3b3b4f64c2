"""docs/report.png: what a browser shows of the report of a run with a fault. ``make report-picture`` makes it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAULT = "dead-weight-row"


def main() -> int:
    from PIL import Image
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("no chromium: apt-get install chromium, or BROWSER=/path/to/it", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        command = ["--model", "tiny-qwen3", "--npuconf-precision", "bfloat16", "--npuconf-fault", FAULT]
        run = [sys.executable, "-m", "pytest", *command, "--npuconf-report", path, "-q", "-p", "no:cacheprovider"]
        subprocess.run(run, cwd=folder, check=False)  # the fault fails it
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = chromium.new_page(viewport={"width": 1100, "height": 1180}, color_scheme="light")
            page.goto(path.as_uri())
            shot = page.screenshot()
            chromium.close()
    # text on flat ground: 64 colours look the same in a third of the bytes
    Image.open(io.BytesIO(shot)).quantize(64).save(ROOT / "docs" / "report.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
