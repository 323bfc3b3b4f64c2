"""Shares told in sentences: k times on n questions, and one size in percent of the other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.facts import BYTES
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, around, plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.rules._grid import exact, stated
from pytest_npuconf.audit.rules._sentences import ABSENT, sentences

_AFTER = r"(?=\s*(?:[,;()]|\.?$))"  # "47 % of those it answered" is a share of something else
_P = r"(?P<p>\d{1,3}(?:\.\d+)?)\s?%"
_TIMES = (
    re.compile(
        r"^(?:on|of|for|out of) (?:the |these |our )?(?P<n>\d{1,3}(?:,\d{3})+|\d{1,6})(?: [a-z-]+){0,2}? "
        r"(?:questions|prompts|items|samples|problems|cases|images|sentences|examples|queries|tasks|pictures),? "
        r"(?P<words>[^\d,;:%()]{1,70}?) (?P<k>\d{1,3}(?:,\d{3})+|\d{1,6}) times"
        r"(?:, | \(|, i\.e\. |, that is )(?:an? )?(?:(?:accuracy|success|hit|pass|error)(?: rate)?|rate|share)?(?: of)? ?"
        + _P
        + _AFTER,
        re.IGNORECASE,
    ),
    re.compile(
        r"^(?:在)?\s?(?P<n>\d{1,6})\s?(?:道|个|条|张)?(?:题目?|问题|样本|图片|用例)(?:中|上|里)?[,]?\s?"
        r"(?P<words>[^\d,。;%()]{0,16}?(?:答对|正确|命中|识别对|答错|错误))了?\s?(?P<k>\d{1,6})\s?(?:道|个|条|张|次)?题?"
        r"[,(]\s?(?:准确率|正确率|命中率|错误率)?(?:为|是|即)?\s?" + _P + _AFTER
    ),
)
# More answers than questions, or a rate of something else.
_OTHERWISE = re.compile(
    r"\b(?:each|twice|per|both|attempt\w*|retr\w+|average|weighted|balanced|runs?|seeds?"
    r"|majority|at least|at most)\b|每|各|两次|重试|平均|多数",
    re.IGNORECASE,
)
_WRONG = re.compile(r"\b(?:wrong|fail\w*|miss\w*|incorrect|error|refus\w*)\b|错", re.IGNORECASE)


def times_of(context: Context) -> Iterator[Finding]:
    """ "On 400 questions the model was right 171 times, an accuracy of 42.75 %": the share is k / n."""
    for prose, parts in sentences(context.card):
        for part in parts:
            match = next((m for p in _TIMES if (m := p.search(part))), None)
            if match is None or _OTHERWISE.search(match.group()) or ABSENT.search(match.group()):
                continue
            k, n = (float(match[name].replace(",", "")) for name in "kn")
            numbers = numbers_in(f"{match['p']} %", prose.line)
            if n < 2 or k > n or not numbers:
                continue
            cut = Interval(numbers[0].value, numbers[0].value + 2 * numbers[0].half_ulp)
            shares = [100 * k / n, *([100 - 100 * k / n] if _WRONG.search(match["words"]) else [])]
            agrees = any(Interval(s, s).overlaps(i) for s in shares for i in (stated(numbers[0]), cut))
            level = Level.FINE if agrees else Level.CONTRADICTION
            message = f"{match['k']} of {match['n']} is {'' if agrees else 'not '}{numbers[0].text}"
            yield context.finding("aggregate", level, prose.line, message, f"{plain(100 * k / n, 5)} %")


_OF_IT = re.compile(
    r"^\s*,\s*(?:or |i\.e\. |that is |only |just )?(?P<p>\d{1,4}(?:\.\d+)?\s?%) of (?:it|that|the former|the first)\s*[.!]?$",
    re.IGNORECASE,
)


def _size(number: Number) -> Interval | None:
    return around(number, BYTES[number.unit]) if number.unit in BYTES and number.value > 0 and exact(number) else None


def percent_of_it(context: Context) -> Iterator[Finding]:
    """ "The checkpoint has 16.06 GB; this one has 5.73 GB, 35.7 % of it": a sentence of two sizes and their ratio."""
    for prose in context.card.proses:
        for sentence in re.split(r"(?<=[.!?])\s+", prose.text) if len(prose.text) <= 4000 else ():
            numbers = numbers_in(sentence, prose.line)
            if len(numbers) != 3 or numbers[2].unit != "%" or ABSENT.search(sentence):
                continue
            whole, part = _size(numbers[0]), _size(numbers[1])
            if whole is None or part is None or not _OF_IT.match(sentence[numbers[1].end :]):
                continue
            ratio = part / whole * 100.0
            agrees = ratio.overlaps(stated(numbers[2]))
            level = Level.FINE if agrees else Level.CONTRADICTION
            message = f"{numbers[1].text} is {'' if agrees else 'not '}{numbers[2].text} of {numbers[0].text}"
            yield context.finding("aggregate", level, prose.line, message, f"{plain(ratio.middle, 4)} %")
