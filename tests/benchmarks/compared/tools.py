"""The rules of real packages, called as they are: pytest-torch and mindstudio-probe (msprobe).

They come from a folder of their own (requirements.txt beside this file), which is put behind everything else on the path.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pytest_npuconf.errors import SettingsError
from tests.benchmarks.compared.rules import Verdict

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "build" / "compared" / "tools"
PACKAGES = {"pytest-torch": "pytest_torch", "mindstudio-probe": "msprobe"}
# "bf16 = copy.deepcopy(original).to(torch.bfloat16); assert_models_agree(..., min_top1=0.95)": README of pytest-torch 1.1.1;
# the function has no budget of its own
MIN_TOP1 = 0.95


def require_tools() -> dict[str, str]:
    """Version of each package; afterwards they can be imported.

    Raises:
        SettingsError: one is not there, with the command that gets it.
    """
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    os.environ.setdefault("MSPROBE_LOG_LEVEL", "3")  # errors only
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            where = Path(__file__).with_name("requirements.txt")
            raise SettingsError(
                f"the comparison needs {package}, which is not in {FOLDER}",
                mend=f"{sys.executable} -m pip install --no-deps --target {FOLDER} -r {where}",
            ) from error
    return versions


def models_agree(reference: torch.Tensor, candidate: torch.Tensor) -> Verdict:
    """pytest-torch's ``assert_models_agree`` with the budget of its README, over logits ``(positions, vocabulary)``."""
    from pytest_torch import assert_models_agree

    return _asserted(
        lambda: assert_models_agree(lambda _: reference, lambda _: candidate, torch.zeros(1), min_top1=MIN_TOP1)
    )


def matches_reference(reference: torch.Tensor, candidate: torch.Tensor) -> Verdict:
    """pytest-torch's ``assert_matches_reference`` with its default tolerances of the candidate's dtype."""
    from pytest_torch import assert_matches_reference

    return _asserted(lambda: assert_matches_reference(lambda _: candidate, lambda _: reference, torch.zeros(1)))


def _asserted(call: Any) -> Verdict:
    try:
        found = call()
    except AssertionError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Verdict(True, next((line for line in lines[1:] if not line.startswith("Outputs differ")), lines[0]))
    return Verdict(False, str(found) if found is not None else "within its tolerances")


class Dump:
    """What each module of one forward takes and gives, as msprobe's dumps have it (level L0): by ``name.call``, tensors by
    ``input.…``, ``parameters.…`` and ``output.…``."""

    def __init__(self) -> None:
        self.modules: dict[str, dict[str, torch.Tensor]] = {}
        self._calls: dict[str, int] = {}

    def begin(self, module: str) -> None:
        """Another call of ``module``; what is put next is of it."""
        self._calls[module] = self._calls.get(module, -1) + 1

    def put(self, module: str, part: str, value: Any) -> None:
        """Keep the tensors of ``value``: a tensor, a tuple, or a mapping."""
        if isinstance(value, torch.Tensor):
            kept = value.detach() if isinstance(value, torch.nn.Parameter) else value.detach().clone()
            self.modules.setdefault(f"{module}.{self._calls[module]}", {})[part] = kept
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                self.put(module, f"{part}.{key}", inner)
        elif isinstance(value, (tuple, list)):
            for index, inner in enumerate(value):
                self.put(module, f"{part}.{index}", inner)


def msprobe(reference: Sequence[Dump], candidate: Sequence[Dump]) -> tuple[Verdict, Verdict]:
    """msprobe's two verdicts on every module of every forward: its ``Result`` (pass, warning, error; anything but pass
    objects) and its ``Accuracy Reached or Not`` of each output. What only one side has is no row of either, as msprobe's own
    rules pass over what has no match."""
    from msprobe.core.common.const import CompareConst, Const
    from msprobe.core.compare.indicator_analysis.calculator import calculate_result
    from msprobe.core.compare.multiprocessing_compute import check_accuracy

    header = list(CompareConst.COMPARE_RESULT_HEADER)
    levels: dict[str, list[str]] = {}
    inaccurate, outputs = [], 0
    for ours, theirs in zip(reference, candidate, strict=True):
        for module in [name for name in ours.modules if name in theirs.modules]:
            n, b = theirs.modules[module], ours.modules[module]
            found = {
                part: _figures(f"Module.{module}.{part}", _of_batch(n[part], b[part]), b[part])
                for part in n
                if part in b
            }
            level = calculate_result([[row.get(column, "") for column in header] for row in found.values()], Const.ALL)
            levels.setdefault(level, []).append(module)
            for part, row in found.items():
                if part.startswith("output"):
                    outputs += 1
                    if check_accuracy(row[CompareConst.COSINE], row[CompareConst.MAX_ABS_ERR]) != CompareConst.YES:
                        inaccurate.append(f"{module} {part}")
    bad = [
        f"{len(levels[level])} {level} ({levels[level][0]} first)" for level in ("error", "warning") if level in levels
    ]
    result = Verdict(bool(bad), ", ".join(bad) or f"{len(levels.get('pass', []))} pass")
    first = f" ({inaccurate[0]} first)" if inaccurate else ""
    return result, Verdict(bool(inaccurate), f"{len(inaccurate)} of {outputs} outputs No{first}")


def _figures(name: str, candidate: torch.Tensor, reference: torch.Tensor) -> dict[str, Any]:
    """One row of msprobe's table of real data; equal tensors need no arithmetic."""
    from msprobe.core.common.const import CompareConst
    from msprobe.core.compare.npy_compare import CompareResult, ValidateTensor, compare_ops_apply

    columns = [CompareConst.COSINE, CompareConst.MAX_ABS_ERR, CompareConst.ONE_THOUSANDTH_ERR_RATIO]
    row: dict[str, Any] = {
        CompareConst.NPU_NAME: name, CompareConst.BENCH_NAME: name,
        CompareConst.NPU_DTYPE: str(candidate.dtype), CompareConst.BENCH_DTYPE: str(reference.dtype),
        CompareConst.NPU_SHAPE: str(list(candidate.shape)), CompareConst.BENCH_SHAPE: str(list(reference.shape)),
    }  # fmt: skip
    if candidate.dtype == reference.dtype and torch.equal(candidate, reference):
        return row | dict(zip(columns, (1.0, 0.0, 1.0), strict=True))
    n, b = (_array(t) for t in (candidate, reference))
    checked = ValidateTensor().check_tensor(CompareResult(n.copy(), b.copy()))
    figures, _ = compare_ops_apply(
        checked.n_value, checked.b_value, checked.error_flag, checked.err_msg, column_names=columns
    )
    row |= dict(zip(columns, figures, strict=True))
    for prefix, array in (("NPU", n), ("Bench", b)):
        row |= {f"{prefix} max": float(array.max()), f"{prefix} min": float(array.min())} if array.size else {}
    return row


def _of_batch(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The first row, where a request that came alone was computed beside another: who compares dumps compares the request."""
    c, r = candidate.shape, reference.shape
    return candidate[:1] if len(c) == len(r) > 1 and r[0] == 1 < c[0] and c[1:] == r[1:] else candidate


def _array(tensor: torch.Tensor) -> Any:
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
