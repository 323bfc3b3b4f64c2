"""Every judgement of the doctor, in the order in which it is told."""

from __future__ import annotations

from pytest_npuconf.doctor.rules import ascend, memory, settings, versions

RULES = (*ascend.RULES, *versions.RULES, *settings.RULES, *memory.RULES)
