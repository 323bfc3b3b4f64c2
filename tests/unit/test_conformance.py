"""The closing of a run: nothing but a whole, passed, required set is CONFORMANT."""

import pytest

from pytest_npuconf.cards.schema import Card, Claim
from pytest_npuconf.conformance import Status, claims_line, close

WHERE = "m on npu, bfloat16, transformers"


def record(check, verdict="pass", *, waived="", model="m", claims=()):
    return {"check": check, "model": model, "verdict": verdict, "waived": waived, "claims": list(claims)}


def closed(records, *, required="abc", selected=None, **more):
    return close("m", required, required if selected is None else selected, records, where=WHERE, **more)


def passing(checks):
    return [record(check) for check in checks]


def expect(closing, status, detail):
    assert (closing.status, closing.line) == (status, f"{status.value}: {WHERE}: {detail}")


# ---------------------------------------------------------------- the five ends


def test_a_whole_passed_set_is_conformant():
    closing = closed(passing("abc"))
    expect(closing, Status.CONFORMANT, "3 of 3 required checks passed")
    assert (closing.model, closing.missing, closing.failed) == ("m", (), ())
    assert (closing.inconclusive, closing.waived) == ((), ())


def test_one_failed_check_is_not_conformant():
    closing = closed([*passing("ab"), record("c", "fail")])
    expect(closing, Status.NOT_CONFORMANT, "1 required check failed: c")
    assert closing.failed == ("c",)


def test_an_inconclusive_check_is_incomplete():
    closing = closed([*passing("ab"), record("c", "inconclusive")])
    expect(closing, Status.INCOMPLETE, "1 is inconclusive: c")
    assert closing.inconclusive == ("c",)


def test_a_selected_check_without_record_is_incomplete():
    """Its test errored in set-up, or was skipped."""
    closing = closed(passing("ab"))
    expect(closing, Status.INCOMPLETE, "1 required check did not run: c")
    assert closing.missing == ("c",)


def test_a_narrowed_run_that_passed_is_a_subset():
    closing = closed(passing("ab"), selected="ab")
    assert closing.status is Status.SUBSET
    assert closing.line == f"SUBSET: 2 of 3 required checks: {WHERE}: it decides nothing"
    assert closing.missing == ("c",)


def test_only_the_first_status_is_conformant():
    assert [s.value for s in Status] == ["CONFORMANT", "NOT CONFORMANT", "INCOMPLETE", "SUBSET"]


# ---------------------------------------------------------------- which one wins


def test_failed_beats_inconclusive_and_missing():
    closing = closed([record("a", "fail"), record("b", "inconclusive")], interrupted=True)
    expect(closing, Status.NOT_CONFORMANT, "1 required check failed: a")


def test_a_failing_subset_is_not_conformant_and_says_that_it_is_one():
    closing = closed([record("a", "fail")], selected="a")
    expect(closing, Status.NOT_CONFORMANT, "1 required check failed: a (SUBSET: 1 of 3 required checks)")


def test_an_inconclusive_subset_is_incomplete_and_says_that_it_is_one():
    closing = closed([record("a", "inconclusive")], selected="a")
    expect(closing, Status.INCOMPLETE, "1 is inconclusive: a (SUBSET: 1 of 3 required checks)")


def test_a_subset_of_which_a_check_did_not_run_is_incomplete():
    closing = closed([record("a")], selected="ab")
    expect(closing, Status.INCOMPLETE, "1 required check did not run: b (SUBSET: 2 of 3 required checks)")


def test_inconclusive_and_missing_are_both_named():
    closing = closed([record("a"), record("b", "inconclusive")])
    expect(closing, Status.INCOMPLETE, "1 is inconclusive: b; 1 required check did not run: c")


def test_an_interrupted_run_is_incomplete():
    closing = closed(passing("a"), interrupted=True)
    expect(closing, Status.INCOMPLETE, "interrupted; 2 required checks did not run: b, c")
    assert closing.missing == ("b", "c")


def test_an_interrupted_subset_is_incomplete():
    closing = closed(passing("a"), selected="ab", interrupted=True)
    detail = "interrupted; 1 required check did not run: b (SUBSET: 2 of 3 required checks)"
    expect(closing, Status.INCOMPLETE, detail)


def test_interrupted_after_the_last_required_check_is_incomplete_too():
    expect(closed(passing("abc"), interrupted=True), Status.INCOMPLETE, "interrupted")


def test_a_run_that_selected_nothing_is_a_subset_of_nothing():
    closing = closed([], selected="")
    assert closing.status is Status.SUBSET
    assert closing.line.startswith("SUBSET: 0 of 3 required checks: ")


def test_other_models_and_other_checks_do_not_count():
    records = [*passing("ab"), record("c", model="other"), record("d", "fail"), record("a", "fail", model="other")]
    closing = closed(records)
    expect(closing, Status.INCOMPLETE, "1 required check did not run: c")
    assert closing.failed == ()


def test_more_selected_than_required_is_whole():
    assert closed(passing("abcd"), selected="abcd").status is Status.CONFORMANT


def test_the_order_of_records_does_not_matter():
    records = [record("a"), record("b", "fail"), record("c", "inconclusive")]
    assert closed(records) == closed(records[::-1])


def test_a_fail_is_not_hidden_by_another_pass_of_the_same_check():
    """A rerun, or somebody's own gate of the same name in the same run."""
    for records in ([record("a", "fail"), record("a")], [record("a"), record("a", "fail")]):
        assert closed([*records, *passing("bc")]).status is Status.NOT_CONFORMANT


def test_a_required_check_without_a_gate_has_not_passed():
    """``logits.cosine`` has no bound of its own: listed in [required] without one in [gates], nobody judged it."""
    closing = closed([*passing("ab"), record("c", None)])
    assert closing.status is Status.INCOMPLETE


def test_a_set_of_no_required_checks_is_not_conformant():
    """A card that requires kl.noise_ratio only, judged at float32, where it does not run."""
    with pytest.raises(ValueError, match="nothing is required"):
        closed(passing("a"), required="", selected="a")


# ---------------------------------------------------------------- waivers


def test_a_waived_failure_is_conformant_and_said_so():
    closing = closed([*passing("ab"), record("c", "fail", waived="known")])
    expect(closing, Status.CONFORMANT, "2 of 3 required checks passed, 1 waived (c)")
    assert (closing.waived, closing.failed) == (("c",), ())


def test_a_waived_inconclusive_check_is_counted_once():
    closing = closed([*passing("ab"), record("c", "inconclusive", waived="known")])
    expect(closing, Status.CONFORMANT, "2 of 3 required checks passed, 1 waived (c)")
    assert (closing.waived, closing.inconclusive) == (("c",), ())


def test_a_waiver_excuses_its_own_check_only():
    closing = closed([record("a", "fail"), record("b"), record("c", "fail", waived="known")])
    assert (closing.status, closing.failed) == (Status.NOT_CONFORMANT, ("a",))


# ---------------------------------------------------------------- lists in lines


@pytest.mark.parametrize(
    ("count", "shown"), [(1, "c0"), (3, "c0, c1, c2"), (4, "c0, c1, c2, ..."), (9, "c0, c1, c2, ...")]
)
def test_a_line_names_three_and_the_closing_all(count, shown):
    checks = [f"c{i}" for i in range(count)]
    failed = closed([record(c, "fail") for c in checks], required=checks)
    noun = "required check failed" if count == 1 else "required checks failed"
    expect(failed, Status.NOT_CONFORMANT, f"{count} {noun}: {shown}")
    assert failed.failed == tuple(checks)
    missing = closed([], required=checks)
    noun = "required check did not run" if count == 1 else "required checks did not run"
    expect(missing, Status.INCOMPLETE, f"{count} {noun}: {shown}")


def test_several_inconclusive_checks_are_named_in_the_plural():
    closing = closed([record(c, "inconclusive") for c in "abc"])
    expect(closing, Status.INCOMPLETE, "3 are inconclusive: a, b, c")


def test_iterators_will_do():
    closing = close("m", iter("ab"), iter("ab"), iter(passing("ab")), where=WHERE)
    assert closing.status is Status.CONFORMANT


# ---------------------------------------------------------------- claims


def card(tmp_path, claims, name="m"):
    return Card(name, tmp_path, claims=tuple(Claim(f"c{i}", "d", "s") for i in range(claims)))


def standings(*words, prefix="a"):
    return [{"id": f"{prefix}{i}", "standing": word} for i, word in enumerate(words)]


def test_claims_are_counted_over_records(tmp_path):
    records = [
        record("a", claims=standings("reproduced", "not reproduced")),
        record("b", "fail", claims=standings("contradicted", "reproduced", "reproduced", prefix="b")),
    ]
    line, counts = claims_line([card(tmp_path, 9)], records)
    assert line == "CLAIMS: 3 reproduced, 1 not, 1 contradicted (4 of 9 not measured by this run)"
    assert counts == {"reproduced": 3, "not reproduced": 1, "contradicted": 1, "not measured": 4}


def test_claims_that_are_all_measured_have_no_remainder(tmp_path):
    line, counts = claims_line([card(tmp_path, 1)], [record("a", claims=standings("reproduced"))])
    assert (line, counts["not measured"]) == ("CLAIMS: 1 reproduced, 0 not, 0 contradicted", 0)


def test_claims_of_several_cards_are_added(tmp_path):
    line, counts = claims_line([card(tmp_path, 2), card(tmp_path, 3, "n")], [])
    assert line.endswith("(5 of 5 not measured by this run)")
    assert counts["not measured"] == 5


def test_no_claims_at_all(tmp_path):
    assert claims_line([card(tmp_path, 0)], passing("ab"))[0] == "CLAIMS: 0 reproduced, 0 not, 0 contradicted"


def test_a_claim_measured_twice_is_no_second_claim(tmp_path):
    """Whatever is counted, what was not measured is never negative."""
    records = [record("a", claims=standings("reproduced")), record("a", claims=standings("reproduced"))]
    _, counts = claims_line([card(tmp_path, 1)], records)
    assert counts["not measured"] == 0
