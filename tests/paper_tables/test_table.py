"""A table as a page and as CSV."""

from __future__ import annotations

from pathlib import Path

import pytest
from paper.table import UNKNOWN, Numbers, Row, Table


def table(picture: str = "") -> Table:
    rows = (
        Row("initialised", (Numbers((31.0, 31.5), "32.09"), Numbers((1234.5,), digits=1))),
        Row("a | b", (Numbers((), UNKNOWN), "diverged")),
    )
    return Table("table1-small", "Table 1", ("", "Set5", "time"), rows, ("On a machine.",), ("A note.",), picture)


def test_a_cell_has_the_mean_the_spread_and_the_papers_number() -> None:
    assert Numbers((31.0, 31.5), "32.09").words() == "31.250 ± 0.250 (32.09)"
    assert Numbers((1.0, 2.0, 6.0), digits=1).words() == "3.0 ± 2.5"
    assert Numbers((1234.56,), digits=1).words() == "1,234.6"
    assert Numbers((), UNKNOWN).words() == "- (?)"


def test_the_page() -> None:
    assert table("<svg/>").to_markdown() == (
        "# Table 1\n\nOn a machine.\n\n![Table 1](table1-small.svg)\n\n"
        "|  | Set5 | time |\n|---|---|---|\n"
        "| initialised | 31.250 ± 0.250 (32.09) | 1,234.5 |\n"
        "| a \\| b | - (?) | diverged |\n\n- A note.\n"
    )


def test_the_csv_has_every_number_of_every_run() -> None:
    assert table().to_csv().splitlines() == [
        "row,column,run,value,paper",
        "initialised,Set5,0,31.0,32.09",
        "initialised,Set5,1,31.5,32.09",
        "initialised,time,0,1234.5,",
        "a | b,time,0,diverged,",
    ]


def test_files(tmp_path: Path) -> None:
    assert [path.name for path in table().write(tmp_path / "new")] == ["table1-small.md", "table1-small.csv"]
    assert [path.suffix for path in table("<svg/>").write(tmp_path / "new")] == [".md", ".csv", ".svg"]
    assert (tmp_path / "new" / "table1-small.svg").read_text() == "<svg/>"


def test_a_row_without_a_cell_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="b has 1 cells"):
        Table("t", "T", ("", "x", "y"), (Row("b", ("1",)),), ())
