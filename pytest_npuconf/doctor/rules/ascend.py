"""Is the stack there: torch, torch_npu, CANN, the driver, the chips."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.devices.npu import VISIBLE
from pytest_npuconf.doctor.case import Case, Rule
from pytest_npuconf.doctor.findings import Finding, Level
from pytest_npuconf.fingerprint.cann import DEFAULTS, VARIABLES, set_env
from pytest_npuconf.fingerprint.npu_smi import COMMAND

VISIBLE_SOURCE = "https://www.hiascend.com/document/detail/zh/canncommercial/900/maintenref/envvar/envref_07_0028.html"


def torch_import(case: Case) -> Iterator[Finding]:
    """``import torch`` (and torch_npu) fails, crashes or hangs in a fresh Python."""
    imported = case.collected.torch
    if imported.absent:
        mend = "pip install 'pytest-npuconf[transformers]'"
        yield Finding("torch-import", Level.PROBLEM, "torch is not installed", "python -c 'import torch'", mend)
    elif case.asked.device == "npu" and not case.has("torch_npu") and "torch_npu" in imported.trouble:
        return  # the next rule says it
    elif imported.trouble:
        command = "import torch, torch_npu" if case.asked.device == "npu" else "import torch"
        yield Finding(
            "torch-import", Level.PROBLEM, f"it fails: {imported.trouble}", f"python -c '{command}'", _mend_import(case)
        )


def _mend_import(case: Case) -> str:
    if not case.has("torch_npu"):
        return (
            "pip install torch-npu of your torch's version"
            if case.asked.device == "npu"
            else "python -c 'import torch'"
        )
    if case.asked.device != "npu":  # torch loads torch_npu by itself, and CANN with it
        return "export TORCH_DEVICE_BACKEND_AUTOLOAD=0"
    if case.collected.cann.state == "installed":  # nothing to see from outside: where it stops is the next question
        return "python -X faulthandler -X importtime -c 'import torch, torch_npu'"
    return set_env(case.collected.cann.folder)


def torch_npu(case: Case) -> Iterator[Finding]:
    """An NPU is asked for, and there is no torch_npu."""
    if not case.has("torch_npu"):
        torch = case.version("torch")
        wanted = f"=={torch.base_version}" if torch is not None else ""
        what = "the package torch_npu is not installed in this Python"
        yield Finding("torch-npu", Level.PROBLEM, what, "package torch-npu", f"pip install torch-npu{wanted}")


def cann(case: Case) -> Iterator[Finding]:
    """CANN is absent, or there and not sourced."""
    found = case.collected.cann
    if not found.installed and not found.gaps:
        looked = ", ".join([*VARIABLES, *(f"/{path}" for path in DEFAULTS)])
        mend = "install the CANN toolkit and kernels (./Ascend-cann-toolkit_VERSION_linux-ARCH.run --install), then source it"
        yield Finding("cann", Level.PROBLEM, "no CANN toolkit was found", looked, mend)
    elif found.installed and not any(case.host.environ.get(name) for name in VARIABLES):
        what = f"CANN lies in {found.folder}, but its set_env.sh was not sourced in this shell"
        yield Finding("cann", Level.PROBLEM, what, ", ".join(VARIABLES), set_env(found.folder))


def cann_whole(case: Case) -> Iterator[Finding]:
    """CANN is half installed: a named folder, a version file or the driver is missing."""
    for what, where, mend in case.collected.cann.gaps:
        yield Finding("cann-whole", Level.PROBLEM, what, where, mend)


def nnal(case: Case) -> Iterator[Finding]:
    """vllm-ascend needs nnal (ATB) beside the toolkit."""
    atb, folder = case.collected.cann.atb, "/usr/local/Ascend/nnal/atb"
    if not case.has("vllm_ascend") or (atb and not atb.endswith("(not sourced)")):
        return
    what = "nnal (ATB) is not installed" if not atb else "nnal (ATB) is installed, but not sourced"
    install = "./Ascend-cann-nnal_VERSION_linux-ARCH.run --install; " if not atb else ""
    level = Level.PROBLEM if case.asked.engine == "vllm" else Level.WARNING
    yield Finding(
        "nnal",
        level,
        f"vllm-ascend is here, {what}",
        f"ATB_HOME_PATH, {folder}",
        f"{install}source {folder}/set_env.sh",
    )


def npu_smi(case: Case) -> Iterator[Finding]:
    """npu-smi is missing, fails, or reports a chip that is not well."""
    smi = case.collected.smi
    if not smi.present:
        what, mend = "there is no npu-smi, so chips, health and memory are not known", "ls -l /usr/local/bin/npu-smi"
        yield Finding("npu-smi", Level.NOTE, what, "PATH", mend)
    elif smi.trouble:
        mend = "npu-smi info; ls -l /dev/davinci* /dev/davinci_manager (in a container: --device each of them)"
        yield Finding("npu-smi", Level.PROBLEM, smi.trouble, COMMAND, mend)
    for chip in smi.chips:
        if chip.health.upper() != "OK":
            what = f"chip {chip.index} ({chip.name}) is not well: {chip.health}"
            mend = f"npu-smi info -t health -i NPU; then choose others: export {VISIBLE}=..."
            yield Finding("npu-smi", Level.WARNING, what, COMMAND, mend)


def visible_devices(case: Case) -> Iterator[Finding]:
    """The list of devices is read as torch_npu reads it: up to the first character that is no digit or comma, ascending."""
    text = case.host.environ.get(VISIBLE)
    if text is None:
        yield from _none_at_all(case)
        return
    read = re.sub(r"[^0-9,].*", "", text, flags=re.DOTALL)
    numbers: list[int] = []
    for part in read.split(","):
        if not part:
            break
        numbers.append(_number(part))
    there = len(case.collected.smi.chips)
    wrong = _wrong_list(text, read, numbers, there)
    if wrong is None:
        yield from _none_at_all(case)
        return
    what, level = wrong
    meant = {_number(part) for part in re.findall(r"[0-9]+", text)}
    good = sorted(number for number in meant if not there or number < there) or [0]
    mend = f"export {VISIBLE}={','.join(map(str, good))}"
    yield Finding("visible-devices", level, what, f"environment {VISIBLE}; {VISIBLE_SOURCE}", mend)


def _number(digits: str) -> int:
    """Of a list of devices; Python refuses to read thousands of digits."""
    return int(digits[:9])


def _none_at_all(case: Case) -> Iterator[Finding]:
    name = "visible_device_count"
    if case.fingerprint.value(name) == "0":
        mend = "npu-smi info; ls -l /dev/davinci* (in a container: --device /dev/davinci0 ...)"
        yield Finding("visible-devices", Level.PROBLEM, "torch_npu sees no device", case.where(name), mend)


def _wrong_list(text: str, read: str, numbers: list[int], there: int) -> tuple[str, Level] | None:
    if not numbers:
        return f"{VISIBLE}={text!r} names no device: the device count is 0", Level.PROBLEM
    if numbers != sorted(set(numbers)):
        return f"{VISIBLE}={text} is not ascending, each once: the device count is 0", Level.PROBLEM
    if there and numbers[0] >= there:
        return f"{VISIBLE}={text}, but there are {there} devices, from 0: the device count is 0", Level.PROBLEM
    if there and numbers[-1] >= there:
        left = [number for number in numbers if number < there]
        return f"{VISIBLE}={text}, but there are {there} devices, from 0: only {left} are used", Level.WARNING
    if read != text:
        return f"{VISIBLE}={text!r} is read up to its first character that is no digit or comma: {read}", Level.WARNING
    return None


RULES = (
    Rule("torch-import", "torch can be imported", torch_import),
    Rule("torch-npu", "torch_npu is installed", torch_npu, ("npu",)),
    Rule("cann", "CANN is there and sourced", cann, ("npu",)),
    Rule("cann-whole", "CANN is whole", cann_whole, ("npu",)),
    Rule("nnal", "nnal is there for vllm-ascend", nnal, ("npu",)),
    Rule("npu-smi", "the driver sees its chips, and they are well", npu_smi, ("npu",)),
    Rule("visible-devices", "the visible devices are ascending", visible_devices, ("npu",)),
)
