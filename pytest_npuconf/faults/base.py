"""What a fault is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_npuconf.faults.proxy import Proxy

Injector = Callable[[Any], None]
MIDDLE = "{middle}"  # in a fault's ``module``: the number of the middle layer, which faults of a single layer break


@dataclass(frozen=True)
class Fault:
    """A named defect of a loaded transformers model, or of a server.

    Attributes:
        name: what ``--npuconf-fault`` is given.
        description: the defect, in a few words.
        magnitude: how big it is.
        expected: the checks that should catch it, comma-separated; ``nothing`` for a benign variant.
        inject: changes the model in place, for good; raises :class:`pytest_npuconf.errors.FaultError` when there is nothing
            to break in this model or at its dtype.
        benign: a variant that nothing may object to: it is labelled ``VARIANT``, not ``FAULT``.
        seen: where it happened in the field, with a source; empty when we know of none.
        module: fnmatch pattern of the guilty module's name, as in ``model.named_modules()``, or ``attention_mask``; empty when
            it is not one module. ``{middle}`` in it is the number of the middle layer (:meth:`module_of`).
        precisions: dtypes at which it must be caught; empty: at least one of those that the model runs at.
        scaled: the injector of another magnitude, for detection curves; zero magnitude is a healthy model.
        magnitudes: magnitudes for such a curve, smallest first.
        equivalent: why it may survive: the proof.
        target: ``model`` or ``server``; for ``server``, ``inject`` is given the :class:`pytest_npuconf.faults.proxy.Proxy` in
            front of it, before it takes requests, and ``module`` and ``precisions`` are empty.
        beyond: rows of a call that it leaves alone, where it breaks only those behind them: a text must be longer.
        arguments: of a server: words that its command gets, so that the fault is in its own process; one that runs already
            cannot have it.
    """

    name: str
    description: str
    magnitude: str
    expected: str
    inject: Injector
    benign: bool = False
    seen: str = ""
    module: str = ""
    precisions: tuple[str, ...] = ()
    scaled: Callable[[float], Injector] | None = None
    magnitudes: tuple[float, ...] = ()
    equivalent: str = ""
    target: str = "model"
    arguments: tuple[str, ...] = ()
    beyond: int = 0

    @property
    def checks(self) -> tuple[str, ...]:
        """Names of the checks that should catch it."""
        return () if self.expected == "nothing" else tuple(name.strip() for name in self.expected.split(","))

    def module_of(self, layers: int | None) -> str:
        """``module`` for a model with so many decoder layers: the middle one is number ``layers // 2``, as
        ``faults.anatomy.middle`` counts. Any layer matches where their number is not known."""
        return self.module.replace(MIDDLE, "*" if layers is None else str(layers // 2))

    def in_front_of(self, url: str) -> Proxy:
        """A running proxy that breaks the server at ``url`` so; the caller closes it.

        Raises:
            FaultError: there is nothing to break.
        """
        from pytest_npuconf.faults.proxy import Proxy

        proxy = Proxy(url)
        try:
            self.inject(proxy)
            return proxy.start()
        except BaseException:
            proxy.close()
            raise
