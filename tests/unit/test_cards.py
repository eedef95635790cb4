"""One card, or a few: what each type and each oddity becomes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from crawler.fits.cards import CARDS_SCHEMA, parse_cards

BIG = "9223372036854775808"  # 2**63


def images(*cards: str | bytes) -> bytes:
    return b"".join((card.encode("latin-1") if isinstance(card, str) else card).ljust(80) for card in cards)


def row(**columns: Any) -> dict[str, Any]:
    empty = dict.fromkeys(CARDS_SCHEMA.names) | {"header": 0, "card": 0, "keyword": "KEY"}
    return empty | columns


def integer(number: int, value: str | None = None, **columns: Any) -> dict[str, Any]:
    return row(type="integer", value=value or str(number), integer=number, real=float(number), **columns)


def real(number: float, value: str, **columns: Any) -> dict[str, Any]:
    return row(type="real", value=value, real=number, **columns)


def string(value: str, **columns: Any) -> dict[str, Any]:
    return row(type="string", value=value, **columns)


def commentary(keyword: str, value: str, **columns: Any) -> dict[str, Any]:
    return row(keyword=keyword, type="commentary", value=value, **columns)


def invalid(value: str, **columns: Any) -> dict[str, Any]:
    return row(type="invalid", value=value, **columns)


def case(name: str, card: str | bytes, expected: dict[str, Any]) -> Any:
    return pytest.param(card, expected, id=name)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        case("fixed string", "KEY     = 'NGC 1275'           / object", string("NGC 1275", comment="object")),
        case("trailing blanks dropped, leading kept", "KEY     = '  a   '", string("  a")),
        case("empty string", "KEY     = ''                   / none", string("", comment="none")),
        case("blank string", "KEY     = '        '", string("")),
        case("doubled quote", "KEY     = 'O''Hara'  / 'x'", string("O'Hara", comment="'x'")),
        case("slash in string", "KEY     = 'km/s / h' / unit", string("km/s / h", comment="unit")),
        case("quote in comment", "KEY     = 'a' / it's", string("a", comment="it's")),
        case("quote that closes nothing", "KEY     = 'a'b' / c", string("a'b", comment="c")),
        case("empty string, quoted comment", "KEY     = '' / 'x'", string("' / 'x")),
        case("no blank before the slash", "KEY     = 'a'/c", string("a", comment="c")),
        case("string further right", "KEY     =      'a'", string("a")),
        case("full string", "KEY     = '" + "x" * 68 + "'", string("x" * 68)),
        case("unclosed string", "KEY     = 'abc / d", invalid("'abc / d")),
        case("trailing & without CONTINUE", "KEY     = 'abc&'", string("abc&")),
        case("record-valued", "DP1     = 'AXIS.1: 2' / x", string("AXIS.1: 2", keyword="DP1", comment="x")),
        case(
            "true", "KEY     =                    T / yes", row(type="logical", value="T", logical=True, comment="yes")
        ),
        case("false", "KEY     = F", row(type="logical", value="F", logical=False)),
        case("word that begins with T", "KEY     = TRUE", invalid("TRUE")),
        case("integer", "KEY     =                   42 / n", integer(42, comment="n")),
        case("signs and zeros", "KEY     = +007", integer(7, "+007")),
        case("negative", "KEY     =                  -42", integer(-42)),
        case("blank after the sign", "KEY     = - 42", integer(-42, "- 42")),
        case("largest int64", "KEY     = 9223372036854775807", integer(2**63 - 1)),
        case("smallest int64", "KEY     = -" + BIG, integer(-(2**63))),
        case("integer over int64", "KEY     = " + BIG, row(type="integer", value=BIG, real=2.0**63)),
        case("real", "KEY     =               1.5E-3 / s", real(1.5e-3, "1.5E-3", comment="s")),
        case("plus sign", "KEY     = +1.5", real(1.5, "+1.5")),
        case("no digit before the point", "KEY     = -.5", real(-0.5, "-.5")),
        case("no digit after the point", "KEY     = 5.", real(5.0, "5.")),
        case("D exponent", "KEY     = 1.5D+03", real(1500.0, "1.5D+03")),
        case("d exponent, no point", "KEY     = 15d2", real(1500.0, "15d2")),
        case("blanks beside the exponent", "KEY     = 1.5 E - 3", real(1.5e-3, "1.5 E - 3")),
        case("overflow", "KEY     = -1E999", real(float("-inf"), "-1E999")),
        case("underflow", "KEY     = 1E-999", real(0.0, "1E-999")),
        case("not a number", "KEY     = NaN", invalid("NaN")),
        case("infinity", "KEY     = inf", invalid("inf")),
        case("hexadecimal", "KEY     = 0x1F", invalid("0x1F")),
        case("two numbers", "KEY     =                  1 0 / ?", invalid("                 1 0 / ?")),
        case("complex", "KEY     = (1.0, -2D0) / z", row(type="complex", value="(1.0, -2D0)", comment="z")),
        case("complex integers", "KEY     = ( 1,2 )", row(type="complex", value="( 1,2 )")),
        case("undefined", "KEY     =", row(type="undefined")),
        case("undefined with comment", "KEY     =    / why", row(type="undefined", comment="why")),
        case("empty comment", "KEY     = 1 /", integer(1)),
        case("slashes in the comment", "KEY     = 1 // a / b", integer(1, comment="/ a / b")),
    ],
)
def test_value(card: str | bytes, expected: dict[str, Any]) -> None:
    assert parse_cards([images(card)]).to_pylist() == [expected]


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        case("comment", "COMMENT   words / more  ", commentary("COMMENT", "  words / more")),
        case("comment with an indicator", "COMMENT = 'a' / b", commentary("COMMENT", "= 'a' / b")),
        case("history", "HISTORY done", commentary("HISTORY", "done")),
        case("lower-case history", "history done", commentary("HISTORY", "done")),
        case("blank card", "", commentary("", "")),
        case("blank keyword with text", "         text", commentary("", " text")),
        case("blank keyword with an indicator", "        = 5", commentary("", "= 5")),
        case("END with text", "END      of it", commentary("END", " of it")),
        case("END and NUL", b"END\0" + b" " * 76, invalid("", keyword="END\0")),
        case("lower-case keyword", "key     = 1", integer(1)),
        case("underscore, hyphen, digits", "a_b-9   = 1", integer(1, keyword="A_B-9")),
        case("eight columns", "ABCDEFGH= 1", integer(1, keyword="ABCDEFGH")),
        case("blank inside keyword", "AB CD   = 1", integer(1, keyword="AB CD")),
        case("blank before keyword", " KEY    = 1", integer(1)),
        case("indicator before column 9", "KEY= 'a' / b", string("a", comment="b")),
        case("equals sign in keyword", "A=B     = 1", integer(1, keyword="A=B")),
        case("no blank after equals sign", "KEY     =1", invalid("=1")),
        case("no indicator", "KEY     5 / five", invalid("5 / five")),
        case("keyword too long", "TOOLONGKEY = 1", invalid("EY = 1", keyword="TOOLONGK")),
        case("comment too long", "COMMENTS= 1", integer(1, keyword="COMMENTS")),
        case("hierarch", "HIERARCH ESO DET ID = 'ccd' / x", string("ccd", keyword="ESO DET ID", comment="x")),
        case("hierarch keeps case", "HIERARCH Eso Det Gain=1.5", real(1.5, "1.5", keyword="Eso Det Gain")),
        case("short hierarch", "HIERARCH abc = 5", integer(5, keyword="abc")),
        case("hierarch comment", "HIERARCH COMMENT = 5", commentary("COMMENT", " COMMENT = 5")),
        case("lower-case hierarch", "hierarch a = 5", invalid(" 5", keyword="a")),
        case("hierarch at column 80", "HIERARCH".ljust(10) + "A" * 69 + "=", row(keyword="A" * 69, type="undefined")),
        case("hierarch without value", "HIERARCH ESO DET", invalid(" ESO DET", keyword="HIERARCH")),
        case("hierarch as a plain keyword", "HIERARCH= 5", integer(5, keyword="HIERARCH")),
        case("byte over 0x7E in comment", "KEY     = 1 / caf\xe9", integer(1, comment="caf\xe9")),
        case("byte over 0x7E in commentary", "COMMENT \xb5m", commentary("COMMENT", "\xb5m")),
        case("byte over 0x7E in string", "KEY     = '\xb5m'", invalid("'\xb5m'")),
        case("byte over 0x7E in keyword", "K\xe9Y     = 1", integer(1, keyword="K\xc9Y")),
        case("control bytes in commentary", "HISTORY a\n\tb", commentary("HISTORY", "a\n\tb")),
        case("NUL padding", b"\0" * 80, invalid("\0" * 72, keyword="\0" * 8)),
        case("value padded with NUL", b"KEY     = 1".ljust(80, b"\0"), invalid("1" + "\0" * 69)),
        case("0xFF", b"\xff" * 80, invalid("\xff" * 72, keyword="\xff" * 8)),
    ],
)
def test_keyword(card: str | bytes, expected: dict[str, Any]) -> None:
    assert parse_cards([images(card)]).to_pylist() == [expected]


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        pytest.param(
            ["KEY     = 'ab &' / one", "CONTINUE  '  cd&' / two", "CONTINUE  'ef  '"],
            string("ab   cdef", comment="one two"),
            id="run",
        ),
        pytest.param(
            ["KEY     = 'it''s&'", "CONTINUE  ' O''Hara' / c"],
            string("it's O'Hara", comment="c"),
            id="doubled quotes",
        ),
        pytest.param(["KEY     = 'ab&'", "CONTINUE  '' / c"], string("ab", comment="c"), id="empty end"),
        pytest.param(["KEY     = 'ab&'", "CONTINUE  'cd&'"], string("abcd"), id="last one ends with &"),
        pytest.param(["KEY     = 'ab'", "CONTINUE  'cd'"], string("abcd"), id="no &"),
        pytest.param(
            ["HIERARCH LONG KEYWORD = 'ab&'", "CONTINUE  'cd'"],
            string("abcd", keyword="LONG KEYWORD"),
            id="hierarch",
        ),
        pytest.param(["CONTINUE  'ab&'", "CONTINUE  'cd'"], string("abcd", keyword="CONTINUE"), id="opens the header"),
        pytest.param(["CONTINUE  5"], integer(5, keyword="CONTINUE"), id="opens the header with a number"),
        pytest.param(
            ["COMMENT ab", "CONTINUE  'cd' / e"],
            commentary("COMMENT", "ab".ljust(72) + "CONTINUE  'cd' / e"),
            id="after commentary",
        ),
        pytest.param(
            ["KEY     = 5 / n", "CONTINUE  'cd'"],
            invalid("5 / n".ljust(70) + "CONTINUE  'cd'"),
            id="after a number",
        ),
        pytest.param(
            ["KEY     = 'ab&'", "CONTINUE  no string"],
            invalid("'ab&'".ljust(70) + "CONTINUE  no string"),
            id="without a string",
        ),
        pytest.param(["CONTINUE" + "'" * 72], invalid("'" * 72, keyword="CONTINUE"), id="without a blank"),
    ],
)
def test_continue(cards: list[str], expected: dict[str, Any]) -> None:
    assert parse_cards([images(*cards)]).to_pylist() == [expected]


def test_rows_are_in_the_order_of_header_and_card() -> None:
    first = images("A       = 1", "B       = 'x&'", "CONTINUE  'y'", "A       = 1")
    second = images("CONTINUE  'z'", "A       = 1")
    table = parse_cards([b"", first, b"", second])
    assert table.schema == CARDS_SCHEMA
    assert table.select(["header", "card", "keyword", "value"]).to_pylist() == [
        {"header": 1, "card": 0, "keyword": "A", "value": "1"},
        {"header": 1, "card": 1, "keyword": "B", "value": "xy"},
        {"header": 1, "card": 3, "keyword": "A", "value": "1"},
        {"header": 3, "card": 0, "keyword": "CONTINUE", "value": "z"},
        {"header": 3, "card": 1, "keyword": "A", "value": "1"},
    ]


@pytest.mark.parametrize("units", [[], [b""], [b"", b""]], ids=["none", "one empty", "two empty"])
def test_no_cards(units: list[bytes]) -> None:
    assert parse_cards(units).equals(CARDS_SCHEMA.empty_table())


def test_only_continue_runs() -> None:
    table = parse_cards([images("CONTINUE  'a&'", "CONTINUE  'b'")] * 3)
    assert table["value"].to_pylist() == ["ab"] * 3


def test_a_run_as_long_as_a_header_takes_no_time_to_speak_of() -> None:
    run = images("KEY     = '&'") + images("CONTINUE  '" + " " * 66 + "&'") * 50_000
    assert parse_cards([run])["type"].to_pylist() == ["string"]


def test_columns_are_valid_arrow() -> None:
    cards = images("KEY     = 1", "KEY     = 'caf\xe9'", "COMMENT \xff", "KEY     = 1.5", "KEY     = (1, 2)", "K = T")
    table = parse_cards([cards] * 5)
    table.validate(full=True)
    assert isinstance(table, pa.Table)


def test_a_length_that_is_no_multiple_of_80_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        parse_cards([b" " * 81])
