"""Tables and quantities: the same content for people and for programs."""

from __future__ import annotations

import pytest

from einloom.report import Quantity, Report, Table

TABLE = Table(
    "sizes",
    ("tensor", "bytes"),
    (("A", Quantity(4096, "bytes")), ("long name", Quantity(3, "bytes"))),
    numbers=(1,),
)


@pytest.mark.parametrize(
    ("quantity", "plain", "shown"),
    [
        (Quantity(0), "0", "0"),
        (Quantity(999), "999", "999"),
        (Quantity(1000), "1000", "1 k"),
        (Quantity(268_435_456), "268435456", "268 M"),
        (Quantity(999_900), "999900", "1 M"),
        (Quantity(2**62), str(2**62), "4612 P"),
        (Quantity(1023, "bytes"), "1023", "1023 B"),
        (Quantity(1536, "bytes"), "1536", "1.5 KiB"),
        (Quantity(2**30, "bytes"), "1073741824", "1 GiB"),
        (Quantity(0.5, "bytes"), "0.5", "0 B"),
        (Quantity(1.5, "seconds"), "1.5", "1.5 s"),
        (Quantity(2.0, "seconds"), "2", "2 s"),
        (Quantity(0.0123456789, "seconds"), "0.0123457", "12.3 ms"),
        (Quantity(3.2e-7, "seconds"), "3.2e-07", "320 ns"),
        (Quantity(0.0, "seconds"), "0", "0 s"),
        (Quantity(2 / 3, "ratio"), "0.666667", "0.667"),
        (Quantity(float("inf")), "inf", "inf P"),
    ],
)
def test_quantities(quantity: Quantity, plain: str, shown: str) -> None:
    assert quantity.plain() == plain
    assert str(quantity) == shown


def test_a_table_in_a_pipe() -> None:
    assert TABLE.plain() == "tensor\tbytes\nA\t4096\nlong name\t3\n"
    assert Report((TABLE,)).plain() == TABLE.plain()


def test_several_tables_in_a_pipe_have_titles() -> None:
    bare = Table("state", ("name", "value"), (("a", "1"),), header=False)
    assert Report((TABLE, bare)).plain() == f"# sizes\n{TABLE.plain()}\n# state\na\t1\n"


def test_cells_hold_no_tabs_or_newlines() -> None:
    table = Table("t", ("a",), (("one\ttwo\n  three",),))
    assert table.plain() == "a\none two three\n"


def test_a_report_prints_in_columns() -> None:
    assert str(Report((TABLE,))) == (
        "sizes\n"
        "tensor     bytes\n"
        "A          4 KiB\n"
        "long name    3 B"
    )  # fmt: skip
