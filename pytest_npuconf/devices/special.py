"""What a device makes of overflow and of what has no result, against IEEE 754: infinity and NaN. A chip in saturation mode gives
the greatest number and zero instead, and hides what went wrong upstream.

Source of the mode: INF_NAN_MODE_ENABLE, https://hiascend.com/document/detail/zh/Pytorch/600/apiref/Envvariables/Envir_004.html;
of the rules: IEEE 754-2019, 7.2 (invalid operation) and 7.4 (overflow, rounding to nearest).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.devices.base import import_torch

HOT = 100.0  # exp(100) is 2.7e43: beyond every dtype here


@dataclass(frozen=True)
class Special:
    """One operation, what IEEE 754 gives and what the device gave."""

    operation: str
    expected: float
    found: float

    @property
    def right(self) -> bool:
        """Whether it is the same infinity, or NaN."""
        return math.isnan(self.found) if math.isnan(self.expected) else self.found == self.expected


def special_values(device: Any, dtype: str) -> list[Special]:
    """Ask a torch device, at a torch dtype's name; each operand is put there first."""
    torch = import_torch()
    number = getattr(torch, dtype)
    most = torch.finfo(number).max

    def there(*values: float) -> Any:
        return torch.tensor(values, dtype=number).to(device)

    asked: list[tuple[str, float, Callable[[], Any]]] = [
        ("max * 2", math.inf, lambda: there(most) * there(2.0)),
        ("-max * 2", -math.inf, lambda: there(-most) * there(2.0)),
        ("max + max", math.inf, lambda: there(most) + there(most)),
        (f"exp({HOT:g})", math.inf, lambda: torch.exp(there(HOT))),
        ("[max, max] @ [1, 1]", math.inf, lambda: there(most, most)[None] @ there(1.0, 1.0)[:, None]),
        ("0 / 0", math.nan, lambda: there(0.0) / there(0.0)),
        ("inf - inf", math.nan, lambda: there(math.inf) - there(math.inf)),
        ("sqrt(-1)", math.nan, lambda: torch.sqrt(there(-1.0))),
        ("nan * 0", math.nan, lambda: there(math.nan) * there(0.0)),
    ]
    if number is not torch.float32:
        wide = torch.tensor([torch.finfo(torch.float32).max])
        asked.append((f"float32's max as {dtype}", math.inf, lambda: wide.to(device).to(number)))
    with torch.inference_mode():
        return [Special(name, want, float(call().reshape(-1)[0].float().cpu())) for name, want, call in asked]
