"""Reading cards: Markdown, what copying broke, bytes that are no card."""

import codecs
import time
from pathlib import Path

import pytest

from pytest_npuconf.audit.recover import header_names, split_pair
from pytest_npuconf.audit.text import Pair, parse_card, parse_cards, read_card
from pytest_npuconf.errors import AuditError
from tests.seeds import seed_or_skip


def grid(table):
    return [[cell.text for cell in row] for row in (table.header, *table.rows)]


def only_table(text):
    (table,) = parse_card(text).tables
    return table


@pytest.fixture(scope="module")
def seeds():
    return {number: read_card(seed_or_skip(number))[0] for number in ("000", "003")}


# ------------------------------------------------------------------------------------------------------------ Markdown


def test_sections_nest_and_lines_are_counted_from_one():
    card = parse_card("# A\n\ntext\n\n## B\n\nmore\n\n# C\n")
    assert [(s.title, s.depth, s.line, s.end) for s in card.sections] == [
        ("A", 1, 1, 8),
        ("B", 2, 5, 8),
        ("C", 1, 9, 10),
    ]
    assert [card.section_at(n) for n in (1, 3, 7, 9)] == ["A", "A", "B", "C"]


def test_pipe_table_without_markup():
    table = only_table("## R\n\n| **Metric** | `NPU` |\n|:--|--:|\n| [cos](x) | ０．９９９９ |\n| 差异 | １．２％ |\n")
    assert grid(table) == [["Metric", "NPU"], ["cos", "0.9999"], ["差异", "1.2%"]]
    assert (table.section, table.line, [row[0].line for row in table.rows], table.recovered) == ("R", 3, [5, 6], False)


def test_a_bar_in_code_or_escaped_is_no_separator():
    assert grid(only_table("| a | b |\n|---|---|\n| `x \\| y` | 1 \\| 2 |")) == [["a", "b"], ["x | y", "1 | 2"]]


@pytest.mark.parametrize("text", ["one ｜ two ｜ three\n", "```\n｜a｜b｜\n｜x｜0.9｜\n```\n", "｜a｜b|\n｜x｜0.9|\n"])
def test_full_width_bars_elsewhere_are_no_table(text):
    assert not parse_card(text).tables


def test_missing_cells_are_empty():
    assert grid(only_table("a | b | c\n---|---|---\n1 | 2\n")) == [["a", "b", "c"], ["1", "2", ""]]


def test_a_delimiter_row_of_another_length_is_mended():
    assert grid(only_table("| a | b | c |\n|---|---|\n| 1 | 2 | 3 |")) == [["a", "b", "c"], ["1", "2", "3"]]


def test_rows_longer_than_the_header_make_no_table():
    card = parse_card("| a | b |\n|---|---|\n| 1 | 2 | 3 |\n")
    assert not card.tables
    assert "rows longer than its header" in card.notes[0]


def test_rows_that_lost_a_merged_first_cell_move_right():
    text = (
        "| q | text | score | n |\n|-|-|-|-|\n| Q1 | one | 0.866 | 1 |\n| two | 0.862 | 2 | |\n| three | 0.818 | 3 |\n"
    )
    table = only_table(text)
    assert table.recovered
    assert grid(table)[2:] == [["Q1", "two", "0.862", "2"], ["Q1", "three", "0.818", "3"]]


def test_tables_glued_to_prose_before_and_after():
    card = parse_card(
        "text before| a | b |\n|---|---|\n| 1 | 2 |\nafter\n| c | d |\n|---|---|\n| 3 | 4 |after| e | f |\n|---|---|\n| 5 | 6 |"
    )
    assert [grid(table) for table in card.tables] == [
        [["a", "b"], ["1", "2"]],
        [["c", "d"], ["3", "4"]],
        [["e", "f"], ["5", "6"]],
    ]
    assert [prose.text for prose in card.proses] == ["text before", "after", "after"]


@pytest.mark.parametrize(
    "text",
    [
        "+---+-----+\n| a | b   |\n+===+=====+\n| x | 0.9 |\n+---+-----+\n| y | 0.8 |\n+---+-----+\n",
        "text\n| a | b |\n| x | 0.9 |\n| y | 0.8 |\ntext\n",
        "｜a｜b｜\n｜---｜---｜\n｜x｜0.9｜\n｜y｜0.8｜\n",
        "｜ a ｜ b ｜\n｜ x ｜ 0.9 ｜\n｜ y ｜ 0.8 ｜\n",
    ],
)
def test_tables_that_are_drawn_or_have_no_delimiter_row(text):
    assert grid(only_table(text)) == [["a", "b"], ["x", "0.9"], ["y", "0.8"]]


@pytest.mark.parametrize(
    "text", ["| x | 0.9 |\n| y | 0.8 |\n", "| a | b |\n| y | 0.8 | 3 |\n", "| a | b |\n| | 0.8 |\n| one |\n"]
)
def test_rows_without_a_header_beyond_doubt_are_no_table(text):
    assert not parse_card(text).tables


def test_html_table_with_spans_and_two_rows_of_header():
    text = """<table>
<tr><th rowspan="2">n</th><th colspan="2">tok/s</th></tr>
<tr><th>128 in</th><th>2048 in</th></tr>
<tr><td>1</td><td>41.3</td><td rowspan="2">38&nbsp;ms</td></tr>
<tr><td>8</td><td>288</td></tr>
</table>"""
    table = only_table(text)
    assert grid(table) == [["n", "tok/s 128 in", "tok/s 2048 in"], ["1", "41.3", "38 ms"], ["8", "288", "38 ms"]]
    assert [row[0].line for row in table.rows] == [4, 5]
    assert table.recovered


def test_markdown_goes_on_behind_details():
    assert grid(only_table("<details><summary>more</summary>\n| a | b |\n|---|---|\n| 1 | 2 |\n</details>")) == [
        ["a", "b"],
        ["1", "2"],
    ]


def test_nested_lists_bullets_and_pairs():
    card = parse_card("# M\n\n- **Architecture**：Qwen3\n  - layers: 36\n    1. 精度：BF16\n  • KV: 1,024 B\n")
    assert [(p.key, p.value, p.line) for p in card.pairs] == [
        ("Architecture", "Qwen3", 3),
        ("layers", "36", 4),
        ("精度", "BF16", 5),
        ("KV", "1,024 B", 6),
    ]


def test_pairs_of_tables_of_two_columns():
    card = parse_card("| 参数 | 值 |\n|---|---|\n| hidden_size | 2560 |\n")
    assert card.pairs == (Pair("hidden_size", "2560", 3, ""),)


@pytest.mark.parametrize(
    "text", ["see https://x.org", "at 12:30 it ran", "first, then: this", "空的。然后: 这", "key:"]
)
def test_no_pair(text):
    assert not parse_card(text).pairs


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("Top-1: 85%", "Top-1", "85%"),
        ("p99：12 ms", "p99", "12 ms"),
        ("示例 1: 事实", "示例 1", "事实"),
        ("a: b: c", "a", "b: c"),
    ],
)
def test_keys_that_end_in_digits(text, key, value):
    assert parse_card(f"# T\n\n{text}\n").pairs == (Pair(key, value, 3, "T"),)


def test_front_matter_becomes_pairs_and_no_text():
    card = parse_card("---\nlicense: mit\ntags:\n- npu\n- qwen3\nmodel:\n  size: 4B\n---\n# T\n\nx\n")
    assert [(p.key, p.value, p.line) for p in card.pairs] == [
        ("license", "mit", 2),
        ("tags", "npu, qwen3", 4),
        ("model.size", "4B", 7),
    ]
    assert [prose.text for prose in card.proses] == ["T", "x"]


def test_a_rule_at_the_top_is_no_front_matter():
    assert [p.text for p in parse_card("---\n\nwords here\n\n---\n").proses] == ["words here"]


def test_badges_leave_only_their_description():
    card = parse_card("[![CI passing](https://b.org/99.9%25.svg)](https://x.org) ![](y.png)\n")
    assert [prose.text for prose in card.proses] == ["CI passing"]


# ---------------------------------------------------------------------------------------------------------------- code


def test_fences_with_language_and_line():
    card = parse_card("a\n\n```Bash\npip install x\n```\n\n~~~\ny\n~~~\n")
    assert [(c.language, c.text, c.line) for c in card.codes] == [("bash", "pip install x\n", 4), ("", "y\n", 8)]


def test_a_fence_that_never_closes_ends_where_prose_begins():
    card = parse_card(
        "```python\nprint(1)\n\n该函数通过将输入转换为小写来进行归一化。\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    assert [code.text.strip() for code in card.codes] == ["print(1)"]
    assert len(card.tables) == 1
    assert "line 1 is not closed" in card.notes[0]


def test_a_fence_left_open_before_another():
    card = parse_card("```python\nx = 1\n\n## Next\n\n```bash\nls\n```\n")
    assert [(c.language, c.text.strip()) for c in card.codes] == [("python", "x = 1"), ("bash", "ls")]
    assert [s.title for s in card.sections] == ["Next"]


def test_commands_without_a_fence_are_code_and_their_comments_no_headings():
    card = parse_card(
        "Install:\n\n# the server\npip install vllm\nexport A_B=1\n\ncurl http://h/v1 \\\n-d '{\n\"n\": 1\n}'\nDone.\n"
    )
    assert [(c.language, c.line) for c in card.codes] == [("bash", 3)]
    assert not card.sections
    assert [prose.text for prose in card.proses] == ["Install:", "Done."]


def test_python_without_a_fence():
    card = parse_card(
        "Use it so:\n\nfrom vllm import LLM\n# load\nllm = LLM(\n    model='x',\n)\n\nprint(llm)\n\nThe end of it.\n"
    )
    (code,) = card.codes
    assert code.language == "python"
    assert code.text.startswith("from vllm")
    assert code.text.endswith("print(llm)\n")


def test_a_command_glued_to_the_line_before_begins_another_block():
    first, second = parse_card("pip install 'a>=1' modelscopepython3 -m vllm.serve \\\n--port 1\n").codes
    assert (first.text.strip(), first.line) == ("pip install 'a>=1' modelscope", 1)
    assert (second.text.split()[0], second.line) == ("python3", 1)


def test_a_first_line_with_a_command_below_is_a_title():
    assert [s.title for s in parse_card("# Install\npip install x\n").sections] == ["Install"]


# ------------------------------------------------------------------------------------------------- separators that were lost


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("测试文本NPU PPL (BF16)CPU PPL (FP32)差异", ["测试文本", "NPU PPL (BF16)", "CPU PPL (FP32)", "差异"]),
        ("指标NPU FP32 vs CPU FP32NPU BF16 vs CPU BF16", ["指标", "NPU FP32 vs CPU FP32", "NPU BF16 vs CPU BF16"]),
        ("MetricNPUCPUDifference", ["Metric", "NPU", "CPU", "Difference"]),
        ("参数值", ["参数", "值"]),
        ("The model is fast", []),
        ("", []),
    ],
)
def test_names_in_a_glued_header(text, names):
    assert header_names(text) == names


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("hidden_size2560", ["hidden_size", "2560"]),
        ("tie_word_embeddingsTrue", ["tie_word_embeddings", "True"]),
        ("Python≥ 3.10", ["Python", "≥ 3.10"]),
        ("vLLM-Ascend0.18.0rc1+", ["vLLM-Ascend", "0.18.0rc1+"]),
        ("并发数10", ["并发数", "10"]),
        ("输出令牌耗时 (TPOT)4.3 ms/tok", ["输出令牌耗时 (TPOT)", "4.3 ms/tok"]),
        ("吞吐量(并发1)88 tok/s", ["吞吐量(并发1)", "88 tok/s"]),
        ("NPU 设备Ascend910_9362 (Atlas 800 A2) × 1", ["NPU 设备", "Ascend910_9362 (Atlas 800 A2) × 1"]),
        ("p50_latency_ms9.416", ["p50_latency_ms", "9.416"]),
        ("fp16_enabledTrue", ["fp16_enabled", "True"]),
        ("resultPASS", ["result", "PASS"]),
        ("cosine_similarity", ["cosine_similarity", ""]),
        ("只有文字", None),
        ("two words", None),
        ("显存GPU内存64", None),  # two places to cut
    ],
)
def test_pairs_that_lost_their_separator(text, pair):
    assert split_pair(text) == pair


PERPLEXITY = """测试文本NPU PPLCPU PPL差异
one...7.23507.13901.34%
two...3.73093.83252.65%
three...3.63053.62630.12%
平均4.86554.86591.37%
"""


def test_glued_decimals_are_cut_where_the_arithmetic_says():
    table = only_table(PERPLEXITY)
    assert table.recovered
    assert grid(table)[1] == ["one...", "7.2350", "7.1390", "1.34%"]
    assert grid(table)[-1] == ["平均", "4.8655", "4.8659", "1.37%"]


def test_glued_marks_quotes_and_dashes():
    header = "输入文本余弦相似度相对误差Token 预测匹配NPU预测CPU预测"
    rows = ['Paris is0.9999890.79%✅" a"" a"', 'Water is H0.9999632.71%✅"b""b"', 'Two is0.9999175.13%✅" "" "']
    assert grid(only_table("\n".join([header, *rows, "平均0.9999562.88%100%——"])))[1:] == [
        ["Paris is", "0.999989", "0.79%", "✅", '" a"', '" a"'],
        ["Water is H", "0.999963", "2.71%", "✅", '"b"', '"b"'],
        ["Two is", "0.999917", "5.13%", "✅", '" "', '" "'],
        ["平均", "0.999956", "2.88%", "100%", "—", "—"],
    ]


def test_means_that_agree_for_every_cut_decide_nothing():
    """A mean stays right when the same digit moves from one column to the next in all rows."""
    assert not parse_card(
        "输入文本余弦相似度相对误差\nParis is0.9999890.79%\nWater is0.9999632.71%\n平均0.9999761.75%\n"
    ).tables


def test_each_row_its_own_decimals_where_metrics_stand_in_rows():
    text = "指标NPU FP32 vs CPU FP32NPU BF16 vs CPU FP32\n余弦相似度0.999850.99995\n平均差异0.004%1.44%\n匹配率—100%\n"
    assert grid(only_table(text))[1:] == [
        ["余弦相似度", "0.99985", "0.99995"],
        ["平均差异", "0.004%", "1.44%"],
        ["匹配率", "—", "100%"],
    ]


def test_two_ways_to_cut_make_no_table_and_no_numbers():
    from pytest_npuconf.audit.numbers import numbers_in

    card = parse_card("测试文本余弦相似度差异\none0.9991281.55%\ntwo0.9981731.22%\n")
    assert not card.tables
    assert not [number for prose in card.proses for number in numbers_in(prose.text)]


def test_a_row_that_does_not_fit_spoils_the_table():
    assert not parse_card(PERPLEXITY + "总结一下这些结果还不错\n").tables


def test_rows_counted_from_one_with_a_status():
    text = "步骤措施状态\n1运行 GSM8K 评估📋 待执行\n2公开✅ 完成\n"
    assert grid(only_table(text)) == [
        ["步骤", "措施", "状态"],
        ["1", "运行 GSM8K 评估", "📋 待执行"],
        ["2", "公开", "✅ 完成"],
    ]


def test_tabs_and_columns_of_spaces():
    assert grid(only_table("a\tb\tc\n1\t2\t3\n4\t\t6\n")) == [["a", "b", "c"], ["1", "2", "3"], ["4", "", "6"]]
    table = only_table("Metric    NPU    CPU\ncosine    0.99   1.00\nPPL       7.1    7.2\n")
    assert grid(table)[1] == ["cosine", "0.99", "1.00"]
    assert table.recovered


@pytest.mark.parametrize("text", ["测试配置\n说明文字没有数字\n", "结果\n第一行\n第二行\n", "精度\n1.5\n"])
def test_prose_stays_prose(text):
    assert not parse_card(text).tables


# ------------------------------------------------------------------------------------------------------- several, headings


def test_headings_that_lost_their_marks_only_where_none_has_one():
    assert [s.title for s in parse_card("Title\n\ntext is here.\n\n快速开始\n\n1. 安装\n\nx.\n").sections] == [
        "Title",
        "快速开始",
        "1. 安装",
    ]
    assert [s.title for s in parse_card("# T\n\nNo heading\n\nx.\n").sections] == ["T"]
    assert not parse_card(
        "Top-1: 85%\n\n0.99\n\nThis line is a whole sentence of many words without its full stop\n"
    ).sections


def test_cards_that_follow_each_other_keep_their_lines():
    first, second = parse_cards("# a-1b\n\n- Parameters: 1B\n\n# b-7b\n\n- Parameters: 7B\n")
    assert [(p.value, p.line) for p in first.pairs] == [("1B", 3)]
    assert [(p.value, p.line) for p in second.pairs] == [("7B", 7)]
    assert second.quote(7) == "- Parameters: 7B"
    assert "card 2 of 2" in second.notes[0]


def test_a_second_front_matter_begins_a_card():
    assert len(parse_cards("---\na: 1\n---\n# X\n\nx\n\n---\na: 2\n---\n# Y\n\ny\n")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "# Model-7B\n\n# Usage\n\nx: 1\n\n# License\n\ny: 2\n",
        "# A\n\ntext\n\n---\n\nmore\n\n---\n\nrest\n",
        "pip install a\n# step: x\ncurl http://a\n# step: y\n",
        "",
    ],
)
def test_one_card(text):
    assert len(parse_cards(text)) == 1


# ---------------------------------------------------------------------------------------------------------------- bytes

CARD = "# 卡片\n\n| 指标 | 值 |\n|---|---|\n| 精度 | ９９％ |\n"


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (CARD.encode(), ""),
        (CARD.encode("utf-8-sig"), ""),
        (CARD.encode("utf-16"), ""),
        (CARD.encode("utf-32"), ""),
        (codecs.BOM_UTF16_BE + CARD.encode("utf-16-be"), ""),
        (CARD.replace("\n", "\r\n").encode(), ""),
        (CARD.replace("\n", "\r").encode(), ""),
        (CARD.encode("gb18030"), "read as GB 18030"),
    ],
)
def test_encodings_and_ends_of_line(tmp_path, data, note):
    path = tmp_path / "README.md"
    path.write_bytes(data)
    (card,) = read_card(path)
    assert grid(card.tables[0]) == [["指标", "值"], ["精度", "99%"]]
    assert card.tables[0].rows[0][0].line == 5
    assert note in " ".join(card.notes)
    assert bool(note) == bool(card.notes)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
        (b"PK\x03\x04" + bytes(100), "ZIP"),
        (b"text\x00text", "null bytes"),
        (bytes(range(1, 32)) * 20, "control characters"),
        (b"caf\xe9 \xff\xff\xff", "neither UTF-8 nor GB 18030"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8\x00", "not valid utf-16"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, data, what):
    path = tmp_path / "README.md"
    path.write_bytes(data)
    with pytest.raises(AuditError, match=what):
        read_card(path)


def test_fifty_megabytes_are_refused_at_once(tmp_path):
    path = tmp_path / "big.md"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    started = time.perf_counter()
    with pytest.raises(AuditError, match=r"50\.0 MB"):
        read_card(path)
    assert time.perf_counter() - started < 1


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(AuditError, match="is a folder"):
        read_card(tmp_path)
    with pytest.raises(AuditError, match="cannot read"):
        read_card(tmp_path / "nothing.md")
    with pytest.raises(AuditError, match="cannot read"):
        read_card(Path("a\x00b"))


def test_an_empty_file_is_an_empty_card(tmp_path):
    path = tmp_path / "README.md"
    path.write_bytes(b"")
    (card,) = read_card(path)
    assert (card.tables, card.pairs, card.proses) == ((), (), ())
    assert "nothing to audit" in card.notes[0]


def test_thin_spaces_full_width_and_other_digits():
    card = parse_card(
        "- 容量：340\u2009480 tokens\n- 占用：９９．５％\n- دقة: ٨٧٫٥٪\n- 1️⃣ 速度：3\u00a0ms\n- e: a\u202eb\u200b\n"
    )
    assert [pair.value for pair in card.pairs] == ["340480 tokens", "99.5%", "87.5%", "3 ms", "ab"]


def test_quotes_are_raw_and_short():
    card = parse_card("  **a** `b`  \n" + "x" * 400)
    assert card.quote(1) == "**a** `b`"
    assert len(card.quote(2)) == 160
    assert card.quote(0) == card.quote(99) == ""


@pytest.mark.parametrize(
    "text",
    ["|" * 20000, "[" * 5000, ">" * 5000, "`" * 20000, "<td" * 5000, "1." * 20000, "*a **b " * 3000, "#\n" * 3000],
)
def test_hostile_text_takes_no_time(text):
    started = time.process_time()
    parse_cards(text)
    assert time.process_time() - started < 3


# ---------------------------------------------------------------------------------------------------------------- the seeds


def test_seed_tables_that_lost_their_separators(seeds):
    card = seeds["000"]
    shapes = {table.line: (len(table.header), len(table.rows)) for table in card.tables}
    assert shapes == {
        81: (2, 7), 92: (4, 5), 98: (5, 1), 105: (6, 5), 114: (4, 8), 128: (4, 7), 141: (3, 4), 153: (3, 3), 164: (2, 3),
        183: (3, 4), 193: (2, 11), 218: (2, 6), 332: (2, 10), 346: (2, 7),
    }  # fmt: skip
    assert all(table.recovered for table in card.tables)
    rows = {cell.line: [c.text for c in row] for table in card.tables for row in table.rows for cell in row[:1]}
    assert rows[106][1:4] == ["0.999989", "0.79%", "✅"]
    assert rows[134][1:] == ["536.4274", "536.4046", "0.0043%"]
    assert rows[93][1:] == ["—", "0.99985", "0.99985"]
    assert [code.language for code in card.codes] == [
        "python",
        "bash",
        "python",
        "python",
        "bash",
        "bash",
        "bash",
        "bash",
    ]


def test_seed_tables_glued_to_prose(seeds):
    card = seeds["003"]
    assert [table.line for table in card.tables] == [2, 14, 19, 25, 91, 115, 122, 129, 139, 150, 154, 166]
    assert [table.line for table in card.tables if table.recovered] == [166]
    assert [c.line for c in card.codes] == [36, 40, 48, 54, 60, 67, 74, 80, 103]
