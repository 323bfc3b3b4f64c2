"""The report in a real browser: it renders, asks nothing of any network, runs nothing that a model wrote, and can be used."""

import copy
import re

import pytest
from playwright.sync_api import expect

from pytest_npuconf.report.page import advice
from pytest_npuconf.report.page.compose import MOST_BYTES, compose
from pytest_npuconf.report.page.matrix import read_matrix
from tests.browser.conftest import as_file

HOSTILE = "<script>window.pwned=1</script><img src=x onerror=window.pwned=2><a href='javascript:window.pwned=3'>&\"'`${1}{{2}}"


def quiet(page):
    assert page.seen == {"requests": [page.address], "console": [], "errors": []}


@pytest.mark.parametrize("name", ["healthy", "broken", "speed"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_renders_and_asks_nothing_of_any_network(visit, results, name, scheme):
    page = visit(results(name), color_scheme=scheme)
    status = results(name)["models"]["tiny-qwen3"]["status"]
    expect(page.locator(".verdict .word")).to_have_text(status)
    assert status in page.title()
    pictures = page.locator("figure svg")
    assert pictures.count() >= 4
    for i in range(pictures.count()):
        box = pictures.nth(i).bounding_box()
        assert box["width"] > 200
        assert box["height"] > 80
    quiet(page)


def test_the_verdict_stands_above_all_else_and_failures_come_next(visit, results):
    page = visit(results("broken"), viewport={"width": 1200, "height": 800})
    assert page.locator(".verdict").bounding_box()["y"] < 120
    failure = page.locator("article.failure").first
    expect(failure).to_contain_text("modules.noise_ratio.bf16_fp32")
    expect(failure).to_contain_text("model.layers.3.mlp.up_proj")
    expect(failure).to_contain_text(advice.then("modules.noise_ratio"))
    assert failure.bounding_box()["y"] < 800  # on the first screen
    headings = page.locator("main h2").all_text_contents()
    assert headings[:3] == ["NOT CONFORMANT", "What failed, where, and what to do", "Every check, with its margin"]


def test_ids_are_unique_and_every_reference_has_its_target(visit, results):
    page = visit(results("healthy"))
    ids = page.eval_on_selector_all("[id]", "all => all.map(each => each.id)")
    assert len(ids) == len(set(ids))
    wanted = page.eval_on_selector_all(
        "[aria-labelledby], [aria-describedby], use",
        "all => all.flatMap(e => [e.getAttribute('aria-labelledby'), e.getAttribute('aria-describedby'),"
        " (e.getAttribute('xlink:href') || e.getAttribute('href') || '').slice(1)]).filter(Boolean)",
    )
    assert len(wanted) > 20
    assert set(wanted) <= set(ids)


def hostile(document):
    """Our own characters of HTML in every text that a model, a card or a host can give."""
    document = copy.deepcopy(document)
    model = document["models"].pop("tiny-qwen3")
    name = f"tiny {HOSTILE}"
    document["models"][name] = model | {"title": HOSTILE, "labels": [HOSTILE], "errors": [HOSTILE], "weights": HOSTILE}
    document["facts"] |= {"command": f"pytest {HOSTILE!r}", "device_description": HOSTILE, "reference": HOSTILE}
    for record in document["checks"]:
        record["model"] = name
        record["reason"] = HOSTILE
        record["rows"] = [{"place": HOSTILE, "value": 1.0, "detail": HOSTILE}]
        for claim in record["claims"]:
            claim |= {"documented": HOSTILE, "source": HOSTILE, "reason": HOSTILE}
        for answer in (record["data"].get("answers") or {}).values():
            answer |= {"text": HOSTILE, "unmet": [HOSTILE], "messages": [{"role": HOSTILE, "content": HOSTILE}]}
        for key in ("ratios", "texts", "layers", "buckets"):
            if key in record["data"]:
                record["data"][key] = {f"{HOSTILE}{k}": v for k, v in record["data"][key].items()}
        record["data"]["guilty"] = HOSTILE
        record["data"]["notes"] = [HOSTILE]
    for reading in document["facts"]["fingerprint"]["versions"].values():
        reading |= {"value": HOSTILE, "source": HOSTILE}
    return document


@pytest.mark.parametrize("name", ["healthy", "broken", "speed"])
def test_nothing_that_a_model_wrote_runs(visit, results, name):
    document = hostile(results(name))
    page = visit(document, earlier=[("older.json", document | {"created": "2026-01-01T00:00:00+00:00"})])
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img, main script, main a[href^=javascript]").count() == 0
    assert page.get_by_text(HOSTILE).count() > 20  # told as it is
    quiet(page)


def test_even_markup_that_slipped_through_would_not_run(visit, results):
    """The policy in the page's head names one script by its hash, and nothing from elsewhere."""
    slipped = "<script>window.pwned=1</script><img src='http://127.0.0.1:9/x'>"
    page = visit(None, text=compose(("r.json", results("healthy"))).replace("</main>", f"{slipped}</main>"))
    assert page.evaluate("window.pwned") is None
    refused = [said for said in page.seen["console"] if "Content Security Policy" in said]
    assert {said.split(" ", 1)[0] for said in refused} >= {"Executing", "Loading"}, page.seen


def shown(page):
    return page.locator("section.checks tbody tr:visible").count()


def test_filters(visit, results):
    document = results("broken")
    page = visit(document)
    total = len(document["checks"])
    expect(page.get_by_role("status")).to_have_text(f"{total} of {total} shown")
    page.get_by_role("searchbox").fill("kl bf16_bf16")
    assert page.locator("section.checks tbody tr:visible th").all_inner_texts() == ["kl.noise_ratio.bf16_bf16"]
    expect(page.get_by_role("status")).to_have_text(f"1 of {total} shown")
    page.get_by_role("searchbox").fill("")
    assert shown(page) == total
    words = [
        "fail" if r["verdict"] == "fail" else "pass" if r["verdict"] == "pass" else "reported"
        for r in document["checks"]
    ]
    page.get_by_role("checkbox", name="pass").uncheck()
    assert shown(page) == total - words.count("pass")
    page.get_by_role("checkbox", name="reported").uncheck()
    assert shown(page) == words.count("fail")
    page.get_by_role("checkbox", name="fail").uncheck()
    assert shown(page) == 0
    expect(page.get_by_role("status")).to_have_text(f"0 of {total} shown")
    quiet(page)


def test_by_keyboard_alone(visit, results):
    page = visit(results("broken"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the verdict"
    assert page.locator(".skip").bounding_box()["x"] >= 0  # seen while it has the focus
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "copy"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.get_by_role("searchbox").focus()
    page.keyboard.type("modules")
    assert shown(page) == 1
    summary = page.locator("section.checks tbody tr:visible summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator("section.checks tbody tr:visible details")).to_have_attribute("open", "")
    focusable = page.locator("a[href], button, input, summary, [tabindex]")
    assert all(focusable.nth(i).evaluate("e => e.tabIndex >= 0") for i in range(focusable.count()))


def test_copy(visit, results):
    page = visit(results("broken"))
    page.locator("article.failure button.copy").first.click()
    expect(page.locator("article.failure button.copy").first).to_have_text(re.compile("copied|selected"))
    assert "test_noise_ratio[tiny-qwen3-bf16_fp32]" in page.evaluate("window.getSelection().toString()")


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
@pytest.mark.parametrize("name", ["healthy", "broken", "speed"])
def test_no_page_is_wider_than_its_screen(visit, results, width, name):
    document = results(name)
    document["models"]["tiny-qwen3"]["title"] = "a" * 300
    page = visit(document, viewport={"width": width, "height": 800})
    page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_everything_is_there(visit, results):
    document = results("broken")
    page = visit(document, java_script_enabled=False)
    assert shown(page) == len(document["checks"])
    assert not page.locator(".filters").is_visible()
    assert not page.locator("button.copy").first.is_visible()


def test_without_colour_every_verdict_has_a_word_and_a_sign(visit, results):
    page = visit(results("broken"), forced_colors="active")
    for text in page.locator("section.checks tbody td[data-label=verdict]").all_inner_texts():
        assert re.fullmatch(r"[✓✗?~·–]\s+(pass|fail|inconclusive|waived|reported|did not run)", text.strip())
    assert (
        page.locator("figure text", has_text="rounding alone").count() >= 1
    )  # lines are named, and differ in their dashes
    dashes = page.eval_on_selector_all("figure path", "all => all.filter(e => e.style.strokeDasharray).length")
    assert dashes >= 1


def luminance(colour):
    values = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(visit, results, scheme):
    """WCAG 2.2, 1.4.3 and 1.4.11: 4.5 for text, 3 for lines and signs."""
    page = visit(results("broken"), color_scheme=scheme)
    colours = page.evaluate(
        """() => Object.fromEntries(['paper', 'raised', 'ink', 'muted', 'first', 'second', 'third', 'fourth', 'bad', 'good',
        'unsure', 'link'].map(name => { const e = document.createElement('i'); e.style.color = `var(--${name})`;
        document.body.append(e); return [name, getComputedStyle(e).color]; }))"""
    )
    for ground in ("paper", "raised"):
        for name, least in {
            "ink": 7, "muted": 4.5, "bad": 4.5, "good": 4.5, "unsure": 4.5, "link": 4.5, "first": 3, "second": 3,
            "third": 3, "fourth": 3,
        }.items():  # fmt: skip
            pair = sorted((luminance(colours[name]), luminance(colours[ground])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, (name, ground)


def test_the_other_scheme_is_another_page(visit, results):
    grounds = {
        scheme: visit(results("healthy"), color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    assert luminance(grounds["light"]) > 0.9
    assert luminance(grounds["dark"]) < 0.1


def test_ten_thousand_checks_open_and_filter(visit, results):
    document = results("broken")
    one = next(r for r in document["checks"] if r["check"] == "kl.noise_ratio.bf16_fp32")
    document["checks"] += [one | {"check": f"kl.noise_ratio{i}.bf16_fp32", "nodeid": f"n{i}"} for i in range(10_000)]
    text = compose(("r.json", document))
    assert len(text.encode()) < MOST_BYTES
    page = visit(None, text=text)
    expect(page.locator("article.failure").first).to_contain_text("modules.noise_ratio")
    page.get_by_role("searchbox").fill("modules")
    assert shown(page) == 1
    assert page.get_by_text("more are not listed").count() == 1
    quiet(page)


def test_a_comparison_and_a_history(visit, results):
    new, old = results("broken"), results("healthy")
    old["created"] = "2026-01-01T00:00:00+00:00"
    older = copy.deepcopy(old) | {"created": "2025-12-31T00:00:00+00:00"}
    page = visit(new, earlier=[("old.json", old), ("older.json", older)])
    turned = page.locator("table.comparison tbody tr").first
    expect(turned).to_contain_text("modules.noise_ratio.bf16_fp32")
    expect(turned).to_contain_text("pass → fail")
    expect(page.get_by_role("region", name="Conditions")).to_contain_text("dead-weight-row")
    assert page.locator("section[aria-label='History: tiny-qwen3'] tbody tr").count() >= 3
    quiet(page)


def test_on_paper_it_is_dark_on_white_whatever_the_screen(visit, results):
    page = visit(results("healthy"), color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    ink = page.locator("figure svg text").first.evaluate("e => getComputedStyle(e).fill")
    assert luminance(ink) < 0.05


@pytest.mark.parametrize("width", [360, 1280])
def test_a_fault_matrix_can_be_read_on_any_screen(visit, results, tmp_path, width):
    """Words are whole, and what is wider than the screen scrolls in its own place."""
    checks = [f"group{i}.a_long_name_of_a_check" for i in range(12)]
    runs = {
        precision: {
            "status": "judged",
            "failed": [f"{check}.bf16_fp32" for check in checks],
            "inconclusive": [],
            "guilty": ["a.b"],
        }
        for precision in ("float32", "bfloat16")
    }
    fault = {
        "name": "dead-weight-row",
        "description": "one row of one MLP weight is zero",
        "outcome": "caught",
        "benign": False,
    }
    campaign = {"model": "m", "labels": ["CPU"], "command": "npuconf faults", "summary": {"overall": {"caught": 1}}}
    path = as_file(tmp_path / "faults.json", campaign | {"faults": [fault | {"runs": runs}]})
    page = visit(results("healthy"), matrices=[read_matrix(path)], viewport={"width": width, "height": 800})
    row = page.locator("table.matrix tbody tr").first
    assert row.bounding_box()["height"] < 160
    region = page.get_by_role("region", name="Fault matrix")
    assert region.evaluate("e => e.scrollWidth > e.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
