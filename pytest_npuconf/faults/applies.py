"""Whether a fault applies to a run at all, before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.documents import Document
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults.base import Fault

SERVERS = ("server",)  # engines whose model answers over HTTP, so that a proxy can stand in front of it
ELSEWHERE = (*SERVERS, "vllm")  # engines whose model is in another process
MENDS = {"server": "--npuconf-engine server", "model": "--npuconf-engine transformers"}


def why_not(target: str, engine: str) -> str:
    """Why a fault of ``target`` (``model`` or ``server``) cannot be injected with this engine; empty when it can."""
    if target == "server" and engine not in SERVERS:
        return f"breaks a server; engine {engine} has none"
    if target == "model" and engine in ELSEWHERE:
        return f"breaks a transformers model; engine {engine} has none in this process"
    return ""


def check_target(fault: Fault, engine: str) -> None:
    """Raises FaultError when the fault breaks what this engine does not have."""
    if reason := why_not(fault.target, engine):
        raise FaultError(f"fault {fault.name} {reason}", mend=MENDS[fault.target])


def check_texts(fault: Fault, model: str, documents: Sequence[Document]) -> None:
    """Raises FaultError when the fault breaks only rows that none of the run's documents has."""
    longest = max(len(d.ids) for d in documents)
    if longest <= fault.beyond:
        raise FaultError(
            f"fault {fault.name} leaves the first {fault.beyond} positions alone, and the longest text of {model} has {longest}",
            mend="longer texts for the card ([prompts] documents), or another --npuconf-fault (list prints them)",
        )


def check_applies(
    fault: Fault, model: str, folder: Path, dtypes: Sequence[str], *, trust_remote_code: bool = False
) -> None:
    """Inject ``fault`` into the architecture without its weights (torch's meta device), at each dtype.

    Only a FaultError speaks: whatever else goes wrong without weights is left to the injection into the loaded model.

    Raises:
        FaultError: the fault does not apply to ``model`` at one of the dtypes.
    """
    for dtype in dtypes:
        try:
            fault.inject(_skeleton(folder, dtype, trust_remote_code))
        except FaultError as error:
            raise FaultError(
                f"--npuconf-fault {fault.name} does not apply to {model} at {dtype}: {error.what}",
                mend=error.mend or "another --npuconf-fault (list prints them), --npuconf-precision or model",
            ) from error
        except Exception:
            continue


def _skeleton(folder: Path, dtype: str, trust_remote_code: bool) -> object:
    torch = import_torch()
    import transformers

    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(str(folder), **options)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
        )
