"""Tables are aligned in the log and drawn on a terminal."""

import io

from rich.console import Console

from densevit.tables import rich_table, table

COLUMNS = ["class", "IoU", "Acc"]
ROWS = [["sky", 0.91234, "0.9500"], ["traffic [light]", 0.4, float("nan")]]


def test_numbers_are_aligned_to_the_right_and_names_to_the_left() -> None:
    assert table("Validation", COLUMNS, ROWS).splitlines() == [
        "Validation",
        "---------------  ------  ------",
        "class               IoU     Acc",
        "---------------  ------  ------",
        "sky              0.9123  0.9500",
        "traffic [light]  0.4000       -",
        "---------------  ------  ------",
    ]


def test_per_cent_have_two_decimals_in_the_whole_column() -> None:
    lines = table("Validation", ["class", "IoU %"], [["sky", 96.3071], ["ball", 0.5]]).splitlines()
    assert lines[4:6] == ["sky    96.31", "ball    0.50"]


def test_a_table_without_rows_shows_its_columns() -> None:
    assert "class  IoU  Acc" in table("Nothing", COLUMNS, [])


def test_brackets_in_names_are_drawn_and_not_read_as_markup() -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(rich_table("Validation [1]", COLUMNS, ROWS))
    drawn = console.file.getvalue()
    assert "Validation [1]" in drawn
    assert "traffic [light]" in drawn


def test_a_title_that_is_wider_than_its_table_is_one_line_where_there_is_room() -> None:
    title = "my_config.py, input 3 x 128 x 160"
    wide, narrow = (Console(file=io.StringIO(), width=width) for width in (60, 20))
    for console in (wide, narrow):
        console.print(rich_table(title, ["a"], [["b"]]))
    assert title in wide.file.getvalue()
    assert max(map(len, narrow.file.getvalue().splitlines())) <= 20
