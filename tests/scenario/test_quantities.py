"""Quantities: every unit, exact values, and strictness."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sim.scenario.quantities import choice, parse_quantity
from sim.units import BANDWIDTH, RATE, SHARE, SIZE, TIME, Quantity

VALUES = [
    ("200 ms", TIME, 0.2),
    ("200ms", TIME, 0.2),
    ("5 ns", TIME, 5e-9),
    ("5 us", TIME, 5e-6),
    ("5 µs", TIME, 5e-6),
    ("1.5 s", TIME, 1.5),
    ("2 min", TIME, 120.0),
    ("1 h", TIME, 3600.0),
    ("1 d", TIME, 86400.0),
    (" 3 s ", TIME, 3.0),
    ("1e3 s", TIME, 1000.0),
    ("+.5 s", TIME, 0.5),
    (3, TIME, 3.0),
    (0.25, TIME, 0.25),
    ("100 B", SIZE, 100),
    ("1 kB", SIZE, 1000),
    ("1 MB", SIZE, 10**6),
    ("1 GB", SIZE, 10**9),
    ("1 TB", SIZE, 10**12),
    ("1 KiB", SIZE, 1024),
    ("1.5 MiB", SIZE, 1.5 * 2**20),
    ("1 GiB", SIZE, 2**30),
    ("1 TiB", SIZE, 2**40),
    ("300/s", RATE, 300.0),
    ("300 /s", RATE, 300.0),
    ("30/min", RATE, 0.5),
    ("360/h", RATE, 0.1),
    ("43200/d", RATE, 0.5),
    ("8 bit/s", BANDWIDTH, 1.0),
    ("8 kbit/s", BANDWIDTH, 1000.0),
    ("100 Mbit/s", BANDWIDTH, 12.5e6),
    ("1 Gbit/s", BANDWIDTH, 125e6),
    ("10 MB/s", BANDWIDTH, 1e7),
    ("1 KiB/s", BANDWIDTH, 1024.0),
    ("2%", SHARE, 0.02),
    ("7 %", SHARE, 0.07),  # 7 * 0.01 is 0.07000000000000001
    ("100%", SHARE, 1.0),
    (0.3, SHARE, 0.3),
]


@pytest.mark.parametrize("text, quantity, value", VALUES)
def test_value(text: object, quantity: Quantity, value: float) -> None:
    assert parse_quantity(text, quantity) == value


def test_every_unit_is_in_the_table() -> None:
    for quantity in (TIME, SIZE, RATE, SHARE):
        written = {
            unit
            for unit in quantity.units
            if any(str(t).endswith(unit) for t, q, _ in VALUES if q is quantity)
        }
        assert written == set(quantity.units)


@pytest.mark.parametrize(
    "value", ["5", "5 S", "5 m", "ms", "", "5 5 s", "1,5 s", "- 5 s", "0x10 s", "1e9999 s", "5 s s", "５ s"]
)
def test_what_is_no_time(value: str) -> None:
    with pytest.raises(ValueError, match=r"expected a time such as 200 ms, found '"):
        parse_quantity(value, TIME)


@pytest.mark.parametrize("value", [True, None, [], {}, float("nan"), float("inf"), 10**400, object()])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(ValueError, match="expected a time such as 200 ms, found"):
        parse_quantity(value, TIME)


def test_limits() -> None:
    assert parse_quantity("0 s", TIME) == 0
    assert parse_quantity("-1 s", TIME, "") == -1
    for value, limit in (("-1 s", " >= 0"), ("0 s", " > 0")):
        with pytest.raises(ValueError, match=f"expected a time{limit} such as 200 ms, found '{value}'"):
            parse_quantity(value, TIME, limit)


@pytest.mark.parametrize("value", ["-1%", "101%", 1.5, -0.1])
def test_a_share_lies_between_0_and_1(value: object) -> None:
    with pytest.raises(ValueError, match="expected a share from 0 to 1 such as 2%, found"):
        parse_quantity(value, SHARE)


@given(st.integers(0, 10**9))
def test_milliseconds_are_the_nearest_float(number: int) -> None:
    assert parse_quantity(f"{number} ms", TIME) == number / 1000


@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    message, value = "expected a time", 0.0
    try:
        value = parse_quantity(text, TIME)
    except ValueError as error:
        message = str(error)
    assert message.startswith("expected a time") and value >= 0


@pytest.mark.parametrize("written, read", [("1", "1"), (1, "1"), ("all", "all"), (4.3, "4.3"), (1.0, "1")])
def test_a_choice_that_reads_as_a_number_may_be_written_as_one(written: object, read: str) -> None:
    assert TypeAdapter(choice(("0", "1", "all", "4.3"))).validate_python(written) == read


@pytest.mark.parametrize("written", [True, 2, None, 0.5])
def test_another_number_is_no_choice(written: object) -> None:
    with pytest.raises(ValidationError, match="expected one of 0, 1, all"):
        TypeAdapter(choice(("0", "1", "all"))).validate_python(written)
