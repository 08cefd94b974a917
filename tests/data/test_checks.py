"""What is printed of many problems."""

from densevit.data.checks import shortened


def test_a_few_files_of_one_reason_are_all_listed() -> None:
    problems = [f"{i}.png: damaged" for i in range(5)]
    assert shortened(problems) == problems


def test_many_problems_of_one_reason_are_one_line() -> None:
    problems = ["b.png: empty", *(f"{i}.png: ids 11 found" for i in range(30)), "c.png: empty"]
    assert shortened(problems) == ["b.png: empty", "c.png: empty", "0.png: ids 11 found (30 such files)"]


def test_of_many_different_problems_the_rest_is_counted() -> None:
    lines = shortened([f"{i}.png: damaged at {i}" for i in range(30)])
    assert (len(lines), lines[-1]) == (21, "and 10 more")
