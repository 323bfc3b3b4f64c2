"""``npuconf audit``: the arguments, the files, the exit status."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_npuconf.audit.findings import Level
from pytest_npuconf.errors import AuditError, NpuconfError, nearest
from pytest_npuconf.locate import data_folder

if TYPE_CHECKING:
    from pytest_npuconf.audit.engine import Audit

FINE, CONTRADICTED, UNREADABLE, UNSUPPORTED = 0, 1, 2, 3
_LEVELS = [level.value for level in Level]
_MAX_CONFIG = 4_000_000
_EPILOG = """\
exit status:
  0  nothing above "ambiguous" (or below --fail-on)
  1  a contradiction, or something implausible
  2  a wrong command line, a file that cannot be read, or a rule that failed itself
  3  something unsupported, and nothing worse
"""


def add_parser(commands: Any) -> None:
    """``audit`` among the subcommands of npuconf."""
    parser = commands.add_parser(
        "audit",
        help="recompute what a model card (any README.md) says; no hardware needed",
        description="Reads model cards in Chinese or English, recomputes what can be recomputed, and says what does not hold.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILE.md", nargs="*", help="Markdown or text; of a card.toml, its gates")
    parser.add_argument("--format", choices=("text", "json", "github", "junit"), default=None, help="text (default)")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument(
        "--config", metavar="config.json", help="the checkpoint's config.json, or the folder it lies in"
    )
    parser.add_argument(
        "--level", metavar="LEVEL", choices=_LEVELS, help=f"show this level and worse: {', '.join(_LEVELS)}"
    )
    parser.add_argument(
        "--fail-on",
        metavar="LEVEL",
        choices=_LEVELS,
        default=Level.UNSUPPORTED.value,
        help="exit with 0 below this level",
    )
    parser.add_argument("--explain", metavar="RULE", help="say what a rule checks and why it is right")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """The exit status."""
    _printable()
    if parsed.explain:
        _say(explain(parsed.explain))
        return FINE
    if not parsed.files:
        raise AuditError("no file to audit", mend="npuconf audit README.md, or npuconf audit --explain RULE")
    if parsed.json and parsed.format not in (None, "json"):
        raise AuditError(f"--json and --format {parsed.format} exclude each other", mend="give one of them")
    name = "json" if parsed.json else parsed.format or "text"
    fail_on = Level(parsed.fail_on)
    audits, unread = audit_files(parsed.files, _config(parsed.config, parsed.files))
    _print(audits, name, Level(parsed.level) if parsed.level else _default_level(name), fail_on)
    for error in unread:
        print(f"ERROR: {error}", file=sys.stderr)
    return exit_status(audits, fail_on, failed=bool(unread))


def audit_files(files: Sequence[str], config: Mapping[str, Any] | None) -> tuple[list[Audit], list[NpuconfError]]:
    """The audits of all cards that could be read, and the errors of the files that could not."""
    today = _today()
    audits: list[Audit] = []
    unread: list[NpuconfError] = []
    for file in dict.fromkeys(files):
        try:
            audits.extend((_lint_toml if Path(file).suffix.lower() == ".toml" else _audit_text)(file, config, today))
        except NpuconfError as error:
            unread.append(error)
    return audits, unread


def _audit_text(file: str, config: Mapping[str, Any] | None, today: datetime.date) -> list[Audit]:
    """All rules over each card of a Markdown file."""
    from pytest_npuconf.audit.engine import audit_card
    from pytest_npuconf.audit.text import read_card

    cards = read_card(Path(file))
    if config is not None and len(cards) > 1:
        raise AuditError(f"{file} holds {len(cards)} cards, and --config belongs to one", mend="split the file")
    return [audit_card(card, config, today) for card in cards]


def _lint_toml(file: str, config: Mapping[str, Any] | None, today: datetime.date) -> list[Audit]:
    """The gates, claims and waivers of a card.toml; the other rules read Markdown only."""
    from pytest_npuconf.audit.document import CardText
    from pytest_npuconf.audit.engine import Audit
    from pytest_npuconf.audit.rules import gates

    if config is not None:
        raise AuditError(f"{file} is TOML, and --config belongs to a card in Markdown", mend="leave --config out")
    found = sorted(gates.lint_card(Path(file), today), key=lambda finding: (-finding.level.rank, finding.line))
    return [Audit(CardText(file, (), ()), tuple(found), only=(gates.ID,))]


def exit_status(audits: Sequence[Audit], fail_on: Level, *, failed: bool = False) -> int:
    """0 where nothing reaches ``fail_on``, else by the worst level found; 2 where something was not looked at."""
    if failed or any(audit.broken for audit in audits):
        return UNREADABLE
    worst = max((finding.level.rank for audit in audits for finding in audit.findings), default=0)
    if worst < fail_on.rank or worst == 0:
        return FINE
    return CONTRADICTED if worst >= Level.IMPLAUSIBLE.rank else UNSUPPORTED


def explain(name: str) -> str:
    """The page of a rule: what it says, why it is right, an example, what it cannot see."""
    from pytest_npuconf.audit.rules import RULES

    if name not in RULES:
        raise AuditError(f"no rule is called {name!r}{nearest(name, list(RULES))}", mend=f"rules: {', '.join(RULES)}")
    try:
        page = data_folder("docs") / "audit" / f"{name}.md"
        return page.read_text(encoding="utf-8").rstrip()
    except OSError:
        rule = RULES[name]
        return f"{rule.id}: {rule.title}\n\n{textwrap.dedent(rule.check.__doc__ or '').strip()}".rstrip()


def _config(given: str | None, files: Sequence[str]) -> Mapping[str, Any] | None:
    """The checkpoint's configuration, where one is given."""
    if given is None:
        return None
    if len(set(files)) > 1:
        raise AuditError("--config belongs to one card, and several files are given", mend="audit them one by one")
    path = Path(given) / "config.json" if Path(given).is_dir() else Path(given)
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise AuditError(f"{path} is too long for a config.json", mend="name the file beside the weights")
        loaded = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AuditError(
            f"cannot read {path}: {error.strerror or error}", mend="--config FOLDER/config.json"
        ) from error
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{path} is not JSON: {error}", mend="name the config.json beside the weights") from error
    if not isinstance(loaded, dict):
        raise AuditError(f"{path} holds no object", mend="name the config.json beside the weights")
    return loaded


def _default_level(name: str) -> Level:
    return Level.AMBIGUOUS if name == "github" else Level.FINE


def _print(audits: Sequence[Audit], name: str, shown: Level, fail_on: Level) -> None:
    from pytest_npuconf.audit import output

    text = output.as_junit(audits, shown, fail_on) if name == "junit" else output.FORMATS[name](audits, shown)
    _say(text)


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has seen enough, as in npuconf audit README.md | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _printable() -> None:
    """A terminal that knows no Chinese gets escapes, not an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _today() -> datetime.date:
    """Today in UTC, or the day of SOURCE_DATE_EPOCH, so that a build can be repeated."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.datetime.now(datetime.timezone.utc)
    if epoch.isascii() and epoch.isdigit() and len(epoch) < 12:
        moment = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    return moment.date()
