"""Precision pairs: the dtype of the device under test against the dtype of the reference."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("float32", "float16", "bfloat16", "int8", "int4")
SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Precision:
    """``candidate`` on the device under test against ``reference``; both torch dtype names."""

    candidate: str
    reference: str

    @property
    def name(self) -> str:
        """``bf16_fp32``, as the claims name it."""
        return f"{SHORT[self.candidate]}_{SHORT[self.reference]}"

    @classmethod
    def named(cls, name: str) -> Precision:
        """The pair of a name such as ``bf16_fp32``.

        Raises:
            KeyError: not the name of a pair.
        """
        dtypes = {short: dtype for dtype, short in SHORT.items()}
        candidate, _, reference = name.partition("_")
        return cls(dtypes[candidate], dtypes[reference])

    @property
    def spoken(self) -> str:
        """``bfloat16/float32``."""
        return f"{self.candidate}/{self.reference}"


def pairs_of(precision: str) -> tuple[Precision, ...]:
    """The pairs that judge one precision of the device: against float32, and (below float32) against its own dtype.

    Raises:
        KeyError: a precision that no engine here can run (int8, int4).
    """
    SHORT[precision]
    against_float32 = Precision(precision, "float32")
    return (against_float32,) if precision == "float32" else (against_float32, Precision(precision, precision))
