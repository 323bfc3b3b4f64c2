"""JUnit: a failure's type is its verdict, and the file is replaced in one piece."""

import os
import stat
from xml.etree import ElementTree

import pytest

from pytest_npuconf.report.junit import set_failure_types

CHECK = (
    '<properties><property name="npuconf.metric" value="kl"/><property name="npuconf.verdict" value="{}"/></properties>'
)


def case(name, inside=""):
    return f'<testcase classname="npuconf.precision" name="{name}" time="0.1">{inside}</testcase>'


def suite(*cases):
    return f'<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest">{"".join(cases)}</testsuite></testsuites>'


def written(folder, *cases):
    path = folder / "junit.xml"
    path.write_text(suite(*cases), encoding="utf-8")
    return path


def types(path):
    """Name of each case to the types of its failures."""
    return {c.get("name"): [f.get("type") for f in c.iter("failure")] for c in ElementTree.parse(path).iter("testcase")}


FAILURE = '<failure message="m">text</failure>'


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [("fail", "fail"), ("inconclusive", "inconclusive"), ("pass", "error"), ("none", "error"), ("", "error")],
)
def test_a_failures_type_is_its_verdict(tmp_path, verdict, kind):
    path = written(tmp_path, case("a", CHECK.format(verdict) + FAILURE))
    set_failure_types(path)
    assert types(path) == {"a": [kind]}


def test_a_failure_that_is_no_checks_is_an_error(tmp_path):
    path = written(
        tmp_path, case("a", FAILURE), case("b", '<properties><property name="x" value="fail"/></properties>' + FAILURE)
    )
    set_failure_types(path)
    assert types(path) == {"a": ["error"], "b": ["error"]}


def test_each_case_has_its_own_verdict(tmp_path):
    path = written(
        tmp_path,
        case("a", CHECK.format("inconclusive") + FAILURE),
        case("b", CHECK.format("fail") + FAILURE),
        case("c", CHECK.format("pass")),
        case("d"),
    )
    set_failure_types(path)
    assert types(path) == {"a": ["inconclusive"], "b": ["fail"], "c": [], "d": []}


def test_of_several_verdicts_the_one_that_failed_counts(tmp_path):
    path = written(tmp_path, case("a", CHECK.format("pass") + CHECK.format("inconclusive") + FAILURE))
    set_failure_types(path)
    assert types(path) == {"a": ["inconclusive"]}


def test_everything_else_stays_as_it_is(tmp_path):
    text = 'a &lt;b&gt; &amp; "c" 模型\nsecond line'
    inside = f'{CHECK.format("fail")}<failure message="x &amp; y">{text}</failure><system-out>out</system-out>'
    path = written(tmp_path, case("a", inside), case("b", '<error message="setup">e</error>'), case("c", "<skipped/>"))
    before = ElementTree.parse(path).getroot()
    set_failure_types(path)
    after = ElementTree.parse(path).getroot()
    (failure,) = after.iter("failure")
    assert failure.attrib.pop("type") == "fail"
    assert ElementTree.tostring(after) == ElementTree.tostring(before)
    assert path.read_text(encoding="utf-8").startswith("<?xml version=")
    assert "模型" in path.read_text(encoding="utf-8")


def test_twice_is_once(tmp_path):
    path = written(tmp_path, case("a", CHECK.format("fail") + FAILURE))
    set_failure_types(path)
    first = path.read_bytes()
    set_failure_types(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o664])
def test_the_files_mode_is_kept_and_nothing_else_is_left(tmp_path, mode):
    path = written(tmp_path, case("a", FAILURE))
    path.chmod(mode)
    set_failure_types(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(tmp_path) == ["junit.xml"]


def test_a_file_that_pytest_did_not_write_is_not_made(tmp_path):
    set_failure_types(tmp_path / "junit.xml")
    assert os.listdir(tmp_path) == []


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    """pytest's --junitxml expands it too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = written(tmp_path, case("a", CHECK.format("fail") + FAILURE))
    set_failure_types(type(path)("~/junit.xml"))
    assert types(path) == {"a": ["fail"]}


def test_a_failing_replacement_leaves_the_file_and_no_scratch(tmp_path, monkeypatch):
    path = written(tmp_path, case("a", FAILURE))
    before = path.read_bytes()

    def refuse(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space"):
        set_failure_types(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["junit.xml"]
