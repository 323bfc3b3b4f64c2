"""A stored reference: one JSON file with sorted keys, its arrays beside it in safetensors. docs/baselines.md has the fields."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.references.sealed import DIGEST, Layout, text_of

STEM = r"[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-(?:float32|float16|bfloat16)"
JSON_NAME = re.compile(rf"(?!\.|calibration-){STEM}\.json")  # a calibration lies beside it
ARRAYS_NAME = re.compile(rf"(?!\.)(?P<stem>{STEM})\.[0-9a-f]{{12}}\.safetensors")
Arrays = Mapping[str, NDArray[Any]]
LAYOUT = Layout(
    noun="a baseline",
    version=3,  # 2: noise by run of looked positions; 3: best words of the positions between them
    fields={
        "model": str,
        "engine": str,
        "device": str,
        "dtype": str,
        "comparability": dict,
        "noise": dict,
        "statistics": dict,
        "provenance": dict,
        "arrays": dict,
    },
    renew="record it anew (--npuconf-record), or use the version of pytest-npuconf that recorded it",
    again="restore the file, or record it anew with --npuconf-record",
)


@dataclass(frozen=True)
class Baseline:
    """The reference of one model x engine x device x dtype.

    ``comparability`` must equal that of a run which uses it; ``noise``, by precision pair, says what rounding alone costs;
    ``statistics`` are sums and counts; ``provenance`` says where it comes from. ``arrays``: see :mod:`.stored`.
    """

    model: str
    engine: str
    device: str
    dtype: str
    comparability: dict[str, Any]
    noise: dict[str, Any]
    statistics: dict[str, Any]
    provenance: dict[str, Any]
    arrays: Arrays
    sha256: str = ""  # of the arrays' file, once read
    digest: str = ""  # of the JSON, once read

    @property
    def stem(self) -> str:
        """``transformers-cpu-float32``: the file's name without its suffix."""
        return f"{self.engine}-{self.device}-{self.dtype}"


def to_json(baseline: Baseline, arrays_file: str, arrays_sha256: str) -> str:
    """The JSON text, sealed with the digest of everything else in it."""
    values = {name: getattr(baseline, name) for name in LAYOUT.fields if name != "arrays"}
    return LAYOUT.to_text({**values, "arrays": {"file": arrays_file, "sha256": arrays_sha256}})


def read_baseline(path: Path) -> Baseline:
    """Read and check one stored reference; a reader never sees half of a write.

    Raises:
        BaselineError: unreadable, of another schema version, half-written or edited, naming file and field.
    """
    while True:
        text = text_of(path)
        values = LAYOUT.values(path, text)
        try:
            return _with_arrays(path, values)
        except FileNotFoundError as error:  # a recorder may have replaced both between the two reads
            if text_of(path) == text:
                raise LAYOUT.damaged(
                    path, f"arrays.file {values['arrays']['file']} is missing: half of it was written"
                ) from error


def _with_arrays(path: Path, values: dict[str, Any]) -> Baseline:
    name, wanted = values["arrays"].get("file"), values["arrays"].get("sha256")
    if not isinstance(name, str) or not ARRAYS_NAME.fullmatch(name):
        raise LAYOUT.damaged(path, f"arrays.file {name!r} is not the name of a file beside it")
    data = (path.parent / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != wanted:
        raise LAYOUT.damaged(path, f"arrays.sha256 does not fit {name}: it was edited, or only half of it was written")
    from safetensors import SafetensorError
    from safetensors import numpy as safetensors

    try:
        arrays: dict[str, NDArray[Any]] = safetensors.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise LAYOUT.damaged(path, f"{name} is not safetensors: {error}") from error
    fields = {name: values[name] for name in LAYOUT.fields}
    baseline = Baseline(**{**fields, "arrays": arrays}, sha256=wanted, digest=values[DIGEST])
    if baseline.stem != path.stem:
        raise LAYOUT.damaged(path, f"it holds {baseline.stem}: it was renamed")
    return baseline


def arrays_bytes(arrays: Arrays) -> bytes:
    """The arrays' file; the same arrays always give the same bytes."""
    from safetensors import numpy as safetensors

    data: bytes = safetensors.save(dict(sorted(arrays.items())))
    return data


def as_arrays(values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """C-contiguous copies, as safetensors wants them."""
    return {name: np.ascontiguousarray(value) for name, value in values.items()}
