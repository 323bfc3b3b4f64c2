"""Faults and benign variants on the real model smollm2-135m-instruct: what each run says.

``python -m tests.benchmarks.faults_on_the_real_model [--threads 1 2]``: a table; exit 1 when a fault was not caught where
it must be, or a clean or benign run was not conformant.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# name, precision, must be caught there
CASES = (
    ("", "float32", False),
    ("", "bfloat16", False),
    ("benign-split-k", "bfloat16", False),
    ("benign-split-k", "float32", False),
    ("benign-blocked-attention", "bfloat16", False),
    ("benign-blocked-attention", "float32", False),
    ("skipped-layer", "bfloat16", True),
    ("rope-base-tenth", "bfloat16", True),
    ("attention-scale", "bfloat16", True),
    ("nan-weight", "bfloat16", True),
    ("dead-weight-row", "float32", True),
)


def judge(fault: str, precision: str, threads: int) -> dict[str, object]:
    """One run's status, failed checks and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--model", "smollm2-135m-instruct"]
        command += ["--npuconf-precision", precision, "--npuconf-results", str(results)]
        command += ["--npuconf-fault", fault] if fault else []
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if not results.is_file():
            raise RuntimeError(f"{command}:\n{done.stdout}{done.stderr}")
        data = json.loads(results.read_text())
    model = data["models"]["smollm2-135m-instruct"]
    ratio = next((c["value"] for c in data["checks"] if c["check"] == "kl.noise_ratio.bf16_fp32"), None)
    worst = next((c["value"] for c in data["checks"] if c["check"] == "logits.rel_l2.fp32_fp32"), None)
    return {"status": model["status"], "exit": done.returncode, "failed": model["failed"], "seconds": seconds,
            "figure": ratio if precision == "bfloat16" else worst}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    wrong = 0
    for threads in parser.parse_args().threads:
        for fault, precision, caught in CASES:
            found = judge(fault, precision, threads)
            wanted = "NOT CONFORMANT" if caught else "CONFORMANT"
            good = found["status"] == wanted and (found["exit"] == 0) == (not caught)
            wrong += not good
            figure = "-" if found["figure"] is None else f"{found['figure']:.3g}"
            print(
                f"{'ok   ' if good else 'WRONG'} {fault or 'clean':<26} {precision:<9} {threads} threads  "
                f"{found['status']:<15} {'noise ratio' if precision == 'bfloat16' else 'worst rel_l2'} {figure}  "
                f"{len(found['failed'])} checks failed  {found['seconds']:.0f} s",
                flush=True,
            )
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
