"""`crawler.text`: figures for a person."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crawler.text import counted, format_bytes, format_count, format_duration, format_interval, format_usd


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (format_count, 0, "0"),
        (format_count, 999_999, "999,999"),
        (format_count, 999_999.7, "1 million"),
        (format_count, 123_456_789, "123 million"),
        (format_count, 999_999_999, "1 billion"),
        (format_count, 5e15, "5,000 trillion"),
        (format_bytes, 999, "999 bytes"),
        (format_bytes, 999.6, "1 kB"),
        (format_bytes, 999_999, "1 MB"),
        (format_bytes, 4.4e10, "44 GB"),
        (format_bytes, 1.5e18, "1,500 PB"),
        (format_usd, 0, "$0"),
        (format_usd, 1e-9, "under $0.000001"),
        (format_usd, 0.000123, "$0.00012"),
        (format_usd, 0.00056, "$0.00056"),
        (format_usd, 0.0999, "$0.10"),
        (format_usd, 0.01, "$0.01"),
        (format_usd, 1234.5, "$1,234.50"),
        (format_duration, 0, "0 s"),
        (format_duration, 1e-5, "under 0.001 s"),
        (format_duration, 0.36, "0.36 s"),
        (format_duration, 72, "72 s"),
        (format_duration, 119.99, "120 s"),
        (format_duration, 180, "3 min"),
        (format_duration, 44_424, "12.3 h"),
        (format_duration, 10 * 86400, "10 days"),
    ],
)
def test_figure_has_three_digits_and_a_unit(form: Callable[[float], str], value: float, text: str) -> None:
    assert form(value) == text


@pytest.mark.parametrize(
    ("form", "low", "high", "text"),
    [
        (format_count, 1, 3, "1 to 3"),
        (format_count, 2.1, 2.2, "2"),
        (format_count, 1.19e6, 1.24e6, "1.19 to 1.24 million"),
        (format_bytes, 9e5, 1.2e6, "900 kB to 1.2 MB"),
        (format_bytes, 80e3, 130e3, "80 to 130 kB"),
        (format_duration, 72, 540, "72 s to 9 min"),
        (format_duration, 1e-5, 2, "under 0.001 s to 2 s"),
        (format_usd, 0, 0.00056, "$0 to $0.00056"),
        (format_usd, 1e-12, 0.00056, "under $0.000001 to $0.00056"),
        (format_usd, 0.09, 1.5, "$0.09 to $1.50"),
    ],
)
def test_interval_names_a_common_unit_once(form: Callable[[float], str], low: float, high: float, text: str) -> None:
    assert format_interval(low, high, form) == text


def test_noun_is_singular_for_one_alone() -> None:
    assert [counted(count, "file") for count in (0, 1, 2, 1000)] == ["0 files", "1 file", "2 files", "1,000 files"]


@pytest.mark.parametrize("form", [format_count, format_bytes, format_usd, format_duration])
def test_figure_of_any_magnitude_has_no_exponent_and_digits_around_its_point(form: Callable[[float], str]) -> None:
    for power in range(-15, 20):
        for digits in (1, 1.0049, 4.996, 9.4999, 9.96, 9.9999):
            text = form(digits * 10.0**power)
            assert "e" not in text.split()[0].removeprefix("under")
            assert ". " not in f"{text} "
