"""The rules. Each module here exposes ``RULES: tuple[Rule, ...]``; they are collected in the modules' sorted order."""

from __future__ import annotations

import importlib
import pkgutil

from pytest_npuconf.audit.context import Context, Rule

__all__ = ["RULES", "Context", "Rule", "collect"]


def collect() -> dict[str, Rule]:
    """Every module's rules by id. Two rules of one id are a defect of the program."""
    rules: dict[str, Rule] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        if name.startswith("_"):
            continue
        for rule in importlib.import_module(f"{__name__}.{name}").RULES:
            if rule.id in rules:
                raise RuntimeError(f"two audit rules are called {rule.id!r}, the second in {name}.py")
            rules[rule.id] = rule
    return rules


RULES: dict[str, Rule] = collect()
