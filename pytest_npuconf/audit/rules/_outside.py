"""What the rule aggregate looks at besides rows of means and columns of differences."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.findings import Finding
from pytest_npuconf.audit.rules._grid import Grid
from pytest_npuconf.audit.rules._prose_shares import percent_of_it, times_of
from pytest_npuconf.audit.rules._prose_stats import statistics_in_prose
from pytest_npuconf.audit.rules._prose_sums import neighbours, parts, points
from pytest_npuconf.audit.rules._prose_tables import between_rows, final_row, reduced
from pytest_npuconf.audit.rules._shares import shares, shares_in_prose, weighted
from pytest_npuconf.audit.rules._side_columns import beside_values, relative_to_row, under_each_other


def of_table(context: Context, grid: Grid) -> Iterator[Finding]:
    """Shares, weighted means, sums of causes, aggregates in columns, ratios to a row."""
    for check in (shares, weighted, parts, beside_values, relative_to_row):
        yield from check(context, grid)


def of_text(context: Context) -> Iterator[Finding]:
    """Lists and sentences."""
    for check in (shares_in_prose, times_of, percent_of_it, points, neighbours, under_each_other):
        yield from check(context)
    for check in (statistics_in_prose, final_row, between_rows, reduced):
        yield from check(context)
