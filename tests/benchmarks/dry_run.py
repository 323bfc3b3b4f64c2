"""Whether installing our wheel here would change a pin of an Ascend host: ``python dry_run.py WHEEL [PIP ARGUMENTS]``."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PINNED = ("torch", "transformers", "numpy", "pytest")


def main() -> int:
    wheel, *more = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--report", str(report)]
        subprocess.run([*command, *more, f"{wheel}[transformers,gguf]"], check=True)
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    wanted = {meta["name"].lower(): meta["version"] for meta in found}
    print("would install:", ", ".join(f"{name} {version}" for name, version in sorted(wanted.items())))
    changed = [name for name in PINNED if name in wanted]
    for name in PINNED:
        print(
            f"  {name} {importlib.metadata.version(name)}: {'CHANGED to ' + wanted[name] if name in changed else 'kept'}"
        )
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
