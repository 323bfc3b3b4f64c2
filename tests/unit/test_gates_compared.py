"""The other tools' rules on results made by hand, the counting, and the shape of docs/comparison.md."""

from __future__ import annotations

import json
import math
import re
import sys

import numpy as np
import pytest

from pytest_npuconf.campaign.worker import told
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.faults.catalogue import SHIPPED
from tests.benchmarks.compared import page, rules
from tests.benchmarks.compared.rules import Generated, logprobs_close, mem_agent, reranker, within_a_percent

RNG = np.random.default_rng(0)
LOGITS = [RNG.normal(size=50) for _ in range(4)]
STATES = [RNG.normal(size=(6, 16)) for _ in range(3)]


def noisy(rows: list[np.ndarray], size: float) -> list[np.ndarray]:
    """Each row off by relative noise of this size."""
    return [row + size * RNG.normal(size=row.shape) * np.linalg.norm(row) / math.sqrt(row.size) for row in rows]


class TestCards:
    def test_an_equal_candidate_passes(self):
        assert not mem_agent(LOGITS, LOGITS, 0.0, None).objects
        assert not reranker(STATES, STATES, LOGITS, LOGITS, float32=True).objects

    def test_the_cosine_of_seed_000_is_a_mean(self):
        one_bad = [*LOGITS[:3], *noisy(LOGITS[3:], 0.013)]  # 0.99992 alone
        assert rules.cosine(one_bad[3], LOGITS[3]) < 0.99995
        assert not mem_agent(one_bad, LOGITS, 0.0, None).objects
        assert mem_agent(noisy(LOGITS, 0.1), LOGITS, 0.0, None).objects

    def test_one_other_token_of_four_fails(self):
        swapped = LOGITS[0].copy()
        best, second = np.argsort(swapped)[::-1][:2]
        swapped[best], swapped[second] = swapped[second], swapped[best]
        verdict = mem_agent([swapped, *LOGITS[1:]], LOGITS, 0.0, None)
        assert verdict.objects
        assert "3/4 tokens" in verdict.says

    @pytest.mark.parametrize(
        ("change", "same", "objects"),
        [(0.029, 0.019, False), (0.031, 0.0, True), (0.0, 0.021, True), (0.009, None, False), (0.011, None, True)],
    )
    def test_perplexity_bounds_of_seed_000_go_with_the_pair(self, change, same, objects):
        assert mem_agent(LOGITS, LOGITS, change, same).objects is objects

    def test_the_relative_error_of_seed_003_is_asked_of_float32_only(self):
        off = [states * 1.02 for states in STATES]  # cosine stays 1
        assert reranker(off, STATES, LOGITS, LOGITS, float32=True).objects
        assert not reranker(off, STATES, LOGITS, LOGITS, float32=False).objects

    def test_what_is_not_finite_is_objected_to(self):
        bad = [np.full(50, np.nan), *LOGITS[1:]]
        assert mem_agent(bad, LOGITS, 0.0, None).objects
        assert mem_agent(LOGITS, LOGITS, math.nan, None).objects
        assert reranker(STATES, STATES, bad, LOGITS, float32=False).objects


class TestPerplexity:
    def test_both_sides_of_a_percent(self):
        nll = [np.full(40, 2.0), np.full(10, 3.0)]
        for factor, objects in ((1.009, False), (0.991, False), (1.011, True), (0.989, True)):
            assert within_a_percent([n + math.log(factor) for n in nll], nll).objects is objects

    def test_tokens_are_pooled(self):
        nll = [np.full(99, 2.0), np.full(1, 2.0)]
        worse = [nll[0], nll[1] + 0.5]
        assert not within_a_percent(worse, nll).objects
        assert rules.mean_perplexity_change(worse, nll) == pytest.approx((math.exp(0.5) - 1) / 2)

    def test_nan_is_objected_to(self):
        assert within_a_percent([np.array([np.nan])], [np.array([1.0])]).objects


def continuation(ids: str, *top: str) -> Generated:
    """``ids``: a letter for each token; ``top``: the best of each step."""
    return Generated(tuple(map(ord, ids)), tuple(frozenset(map(ord, step)) for step in top))


class TestLogprobsClose:
    def test_equal_tokens_are_not_looked_at_further(self):
        assert not logprobs_close([continuation("ab", "a", "b")], [continuation("ab", "x", "y")]).objects

    def test_each_must_be_in_the_others_best(self):
        ours = continuation("ab", "a", "bc")
        assert not logprobs_close([ours], [continuation("ac", "a", "cb")]).objects
        assert logprobs_close([ours], [continuation("ac", "a", "cd")]).objects
        assert logprobs_close([continuation("ab", "a", "bd")], [continuation("ac", "a", "cb")]).objects

    def test_only_the_first_difference_counts(self):
        assert not logprobs_close([continuation("abx", "a", "bc", "x")], [continuation("acy", "a", "cb", "y")]).objects

    def test_a_shorter_one_is_compared_as_far_as_it_goes(self):
        assert not logprobs_close([continuation("ab", "a", "b")], [continuation("a", "a")]).objects

    def test_a_lost_one_is_objected_to(self):
        assert logprobs_close([continuation("a", "a")], []).objects


def run_of(*objecting: str) -> dict:
    """A judged run at which these tools object."""
    return {
        "status": "judged",
        "seconds": 1.0,
        "verdicts": {t: {"objects": t in objecting, "says": ""} for t in page.TOOLS},
    }


def entry(name: str, *, benign: bool = False, equivalent: bool = False, **runs: dict) -> dict:
    """One candidate of a comparison."""
    return {"name": name, "identity": "", "benign": benign, "equivalent": equivalent, "runs": runs}


def made_up() -> dict:
    """A comparison of five candidates."""
    return {
        "model": "tiny-qwen3", "precisions": ["float32", "bfloat16"], "time": "2026-01-02T03:04+00:00",
        "command": "python -m tests.benchmarks.gates_compared --model tiny-qwen3",
        "facts": {"versions": {"torch": "2.13.0"}, "machine": "CPU, x86_64", "threads": 1},
        "ours": {"time": "2026-01-02T03:04:05+00:00", "wall_seconds": 9.0, "left_out": []},
        "faults": [
            entry("", benign=True, float32=run_of(), bfloat16=run_of("ppl")),
            entry("one", float32=run_of("npuconf", "ppl"), bfloat16=run_of("vllm")),
            entry("two", float32=run_of("npuconf"), bfloat16={"status": "inapplicable", "reason": "no"}),
            entry("three", benign=True, float32=run_of(), bfloat16=run_of()),
            entry("four", equivalent=True, float32=run_of("vllm"), bfloat16=run_of()),
        ],
    }  # fmt: skip


class TestPage:
    def test_totals(self):
        found = page.totals(made_up())
        assert found["npuconf"] == {
            "fault float32": (2, 2), "fault bfloat16": (0, 1), "fault all": (2, 2),
            "benign float32": (0, 2), "benign bfloat16": (0, 2), "benign all": (0, 2),
        }  # fmt: skip
        assert found["ppl"]["fault all"] == (1, 2)
        assert found["ppl"]["benign bfloat16"] == (1, 2)
        assert found["vllm"]["fault all"] == (1, 2)  # the equivalent one is not counted

    def test_what_was_not_run_is_not_counted(self):
        data = made_up()
        data["faults"][1]["runs"]["float32"]["verdicts"]["npuconf"] = {"objects": None, "says": "error"}
        assert page.totals(data)["npuconf"]["fault float32"] == (1, 1)
        assert page.cell(data["faults"][1], "npuconf") == "f32?"

    def test_another_tools_catch_is_said(self):
        assert page.missed(made_up()) == {"vllm": ["`one` (bf16)"]}
        assert "- vLLM's tests: `one` (bf16)" in page.section(made_up())

    def test_a_section_has_each_candidate_once(self):
        text = page.section(made_up())
        for name in ("one", "two", "three", "four"):
            assert len(re.findall(rf"^\| `{name}`", text, re.M)) == 1
        assert "| `two` (f32 only) | f32 |" in text
        widths = {line.count("|") for line in text.splitlines() if line.startswith(("| `", "| fault", "| variant"))}
        assert widths == {len(page.TOOLS) + 2}

    def test_the_section_is_replaced_and_nothing_else(self):
        start, end = page.markers("tiny-qwen3")
        text = page.write(made_up(), lambda: f"before\n{start}\nold\n{end}\nafter\n")
        assert text.startswith(f"before\n{start}\nRun of 2026-01-02")
        assert text.endswith(f"\n{end}\nafter\n")
        assert "old" not in text
        with pytest.raises(SettingsError, match="no section of tiny-qwen3"):
            page.write(made_up(), lambda: "nothing")

    def test_our_verdicts_come_from_the_campaign(self):
        data = made_up()
        judged = {"status": "judged", "failed": ["kl.noise_ratio.bf16_fp32"], "inconclusive": []}
        unsure = {"status": "judged", "failed": [], "inconclusive": ["kl.positions.bf16_fp32"]}
        names = ("one", "two", "three", "four")
        matrix = {
            "model": "tiny-qwen3", "time": "t", "wall_seconds": 1.0, "left_out": [],
            "clean": {"float32": unsure, "bfloat16": judged},
            "faults": [{"name": n, "runs": {"float32": judged, "bfloat16": unsure}} for n in names],
        }  # fmt: skip
        found = {f["name"]: page.objections(f, "npuconf") for f in page.with_ours(data, matrix)["faults"]}
        assert found["one"] == {"float32": True, "bfloat16": False}
        assert found["three"] == {"float32": True, "bfloat16": True}  # benign: an inconclusive check is an alarm
        assert found[""] == {"float32": True, "bfloat16": True}
        with pytest.raises(SettingsError, match="lacks 'one'"):
            page.with_ours(data, {**matrix, "faults": []})
        with pytest.raises(SettingsError, match="is of other"):
            page.with_ours(data, {**matrix, "model": "other"})


def test_the_page_names_each_fault_of_the_catalogue_once():
    section = page.section_of(page.PAGE.read_text(encoding="utf-8"), "tiny-qwen3")
    assert sorted(re.findall(r"^\| `([^`]+)`", section, re.M)) == sorted(fault.name for fault in SHIPPED)
    assert all(f"| {title}" in section for title in page.TOOLS.values())


def test_the_page_names_the_tools_versions():
    text = page.PAGE.read_text(encoding="utf-8")
    wanted = (page.PAGE.parents[1] / "tests" / "benchmarks" / "compared" / "requirements.txt").read_text()
    for package, version in re.findall(r"^([a-z-]+)==(\S+)$", wanted, re.M):
        assert f"{package} {version}" in text


class TestCommand:
    def test_missing_tools_are_named_with_the_command(self, monkeypatch, capsys, tmp_path):
        from tests.benchmarks import gates_compared
        from tests.benchmarks.compared import tools

        monkeypatch.setattr(tools, "FOLDER", tmp_path)
        monkeypatch.setattr(tools, "PACKAGES", {"no-such-tool": "no_such_tool"})
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(sys, "argv", ["gates_compared", "--without-ours"])
        assert gates_compared.main() == 2
        said = capsys.readouterr().err
        assert "needs no-such-tool" in said
        assert f"pip install --no-deps --target {tmp_path} -r " in said

    def test_our_verdicts_must_be_there_before_the_work_begins(self, monkeypatch, capsys, tmp_path):
        from tests.benchmarks import gates_compared

        monkeypatch.setattr(sys, "argv", ["gates_compared", "--ours", str(tmp_path / "none.json")])
        assert gates_compared.main() == 2
        assert "mend: npuconf faults --model tiny-qwen3 --json" in capsys.readouterr().err

    def test_what_was_kept_is_shown_with_the_catalogue_of_today(self, monkeypatch, capsys, tmp_path):
        from tests.benchmarks import gates_compared

        target, data = tmp_path / "data.json", made_up()
        name = SHIPPED[0].name
        data["faults"] = [{**data["faults"][1], "name": name, "identity": told(SHIPPED[0])["identity"]}]
        target.write_text(json.dumps(data))
        monkeypatch.setattr(sys, "argv", ["gates_compared", "--show", "--without-ours", "--json", str(target)])
        assert gates_compared.main() == 0
        said = capsys.readouterr().out
        assert f"| `{name}` | f32 |" in said
        assert f"| `{SHIPPED[1].name}` (not run) |" in said
        assert f"1 of {len(SHIPPED) + 1} candidates" in said
        monkeypatch.setattr(sys, "argv", ["gates_compared", "--show", "--without-ours", "--json", str(tmp_path / "no")])
        assert gates_compared.main() == 2

    def test_a_resumed_run_must_be_of_the_same_versions(self, tmp_path):
        from tests.benchmarks.gates_compared import _before

        data, target = made_up(), tmp_path / "data.json"
        assert _before(target, data) == {}
        target.write_text(json.dumps(data))
        assert set(_before(target, data)) == {"", "one", "two", "three", "four"}
        with pytest.raises(SettingsError, match="leave out --resume"):
            _before(target, {**data, "facts": {}})


@pytest.fixture
def real_tools(monkeypatch):
    """The real packages, where ``make compare`` has put them; they are not of the development environment."""
    torch = pytest.importorskip("torch")
    from tests.benchmarks.compared import tools

    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        tools.require_tools()
    except SettingsError as error:
        pytest.skip(str(error))
    return tools, torch


@pytest.mark.filterwarnings("ignore")
class TestRealTools:
    def test_pytest_torch_by_its_budget(self, real_tools):
        tools, torch = real_tools
        reference = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
        other = reference.clone()
        other[:2] = reference[:2].flip(-1)
        assert not tools.models_agree(reference, reference * 3).objects  # top-1 alone is looked at
        assert not tools.models_agree(reference, other).objects  # 38 of 40 is 0.95
        other[2] = reference[2].flip(-1)
        assert tools.models_agree(reference, other).objects

    def test_pytest_torch_by_its_tolerances(self, real_tools):
        tools, torch = real_tools
        reference = torch.linspace(1, 2, 32).reshape(4, 8)
        assert not tools.matches_reference(reference, reference * (1 + 1e-6)).objects
        assert tools.matches_reference(reference, reference * (1 + 2e-5)).objects
        low = reference.bfloat16()
        assert not tools.matches_reference(low, (low.float() * (1 + 2**-7)).bfloat16()).objects
        assert tools.matches_reference(low, (low.float() * 1.03).bfloat16()).objects

    @staticmethod
    def _dump(tools, given, out):
        dump = tools.Dump()
        dump.begin("layer")
        dump.put("layer", "input", (given,))
        dump.put("layer", "output", (out,))
        return [dump]

    @pytest.mark.parametrize(
        ("off", "result", "accuracy"),
        [
            (0.0, False, False),
            (5e-4, False, False),  # inside a thousandth
            (2e-3, True, False),  # no element inside it, while the input is: error
            (-2.0, True, True),  # another direction
        ],
    )
    def test_msprobe_from_a_good_input(self, real_tools, off, result, accuracy):
        tools, torch = real_tools
        given = torch.linspace(0.5, 1, 64).reshape(1, 8, 8)
        found = tools.msprobe(self._dump(tools, given, given), self._dump(tools, given, given * (1 + off)))
        assert [v.objects for v in found] == [result, accuracy]

    def test_msprobe_looks_away_where_the_input_is_off_too(self, real_tools):
        tools, torch = real_tools
        given = torch.linspace(0.5, 1, 64).reshape(1, 8, 8)
        off = given * 1.002
        assert not tools.msprobe(self._dump(tools, given, given), self._dump(tools, off, off))[0].objects

    def test_msprobe_objects_to_nan_and_to_another_shape(self, real_tools):
        tools, torch = real_tools
        given = torch.linspace(0.5, 1, 64).reshape(1, 8, 8)
        bad = given.clone()
        bad[0, 3, 3] = float("nan")
        assert all(v.objects for v in tools.msprobe(self._dump(tools, given, given), self._dump(tools, given, bad)))
        assert all(
            v.objects for v in tools.msprobe(self._dump(tools, given, given), self._dump(tools, given, given[:, :4]))
        )

    def test_msprobe_compares_the_request_that_was_computed_beside_another(self, real_tools):
        tools, torch = real_tools
        given = torch.linspace(0.5, 1, 64).reshape(1, 8, 8)
        both = torch.cat((given, given * 9))
        found = tools.msprobe(self._dump(tools, given, given), self._dump(tools, both, both))
        assert not any(v.objects for v in found)

    def test_a_lost_page_shows_to_whoever_decodes_and_to_nobody_else(self, real_tools):
        from tests.benchmarks.compared.evidence import Bench

        fault = next(fault for fault in SHIPPED if fault.name == "kv-page-lost")
        verdicts = Bench("tiny-qwen3").judge(fault, "float32")
        assert {tool for tool, verdict in verdicts.items() if verdict.objects} == {"vllm"}
        assert {*verdicts, page.OURS} == {*page.TOOLS}
