"""Values as text and as keys: PS3.5 6.1 and 6.2."""

from __future__ import annotations

import struct
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import support.strategies  # noqa: F401 - its Hypothesis profile
from netdicom_tx.archive.encoded import values
from netdicom_tx.archive.encoded.values import Moment, codecs_of, decode, fold, keys_of, text_of

LATIN = ("iso8859",)


@pytest.mark.parametrize(
    ("terms", "codecs"),
    [
        ((), ("iso8859",)),
        (("",), ("iso8859",)),
        (("ISO_IR 192",), ("UTF8",)),
        (("", "ISO 2022 IR 87"), ("iso8859", "iso2022_jp")),
        pytest.param((" ISO_IR 100 ",), ("latin_1",), id="padding"),
        pytest.param(("ISO IR 100",), ("latin_1",), id="a space"),
        pytest.param(("ISO-IR 144",), ("iso_ir_144",), id="a hyphen"),
        pytest.param(("ISO2022 IR 149",), ("euc_kr",), id="no space"),
        pytest.param(("KLINGON",), ("iso8859",), id="unknown"),
    ],
)
def test_terms_have_their_codecs(terms: tuple[str, ...], codecs: tuple[str, ...]) -> None:
    """PS3.3 C.12.1.1.2, and how it is misspelled in the field."""
    assert codecs_of(terms) == codecs


@pytest.mark.parametrize(
    ("terms", "octets", "text"),
    [
        pytest.param(
            ("", "ISO 2022 IR 87"),
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            id="H.3.1",
        ),
        pytest.param(
            ("ISO 2022 IR 13", "ISO 2022 IR 87"),
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J"
            b"=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
            id="H.3.2",
        ),
        pytest.param(
            ("", "ISO 2022 IR 149"),
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
            id="I.2",
        ),
        pytest.param(
            ("ISO_IR 192",),
            b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1=",
            "Wang^XiaoDong=王^小東=",
            id="J.1",
        ),
        pytest.param(
            ("GB18030",),
            b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=",
            "Wang^XiaoDong=王^小东=",
            id="J.2",
        ),
        pytest.param(
            ("", "ISO 2022 IR 149"), b"\x1b$)C\xb1\xe6\\\xe9", "길\\é", id="a delimiter resets"
        ),
        pytest.param((), b"\x1b%Xab", "\x1b%Xab", id="an unknown escape"),
        pytest.param(("ISO_IR 192",), b"a\xff", "a\ufffd", id="not decodable"),
        pytest.param(("", "ISO 2022 IR 87"), b"a\x1b", "a", id="an escape at the end"),
    ],
)
def test_text_is_decoded(terms: tuple[str, ...], octets: bytes, text: str) -> None:
    """PS3.5 6.1.2.5, Annexes H to J; wrong characters never raise."""
    assert decode(octets, codecs_of(terms)) == text


@given(octets=st.binary(max_size=30), terms=st.sampled_from([(), ("", "ISO 2022 IR 87"), ("GBK",)]))
def test_any_octets_are_text_that_a_database_takes(octets: bytes, terms: tuple[str, ...]) -> None:
    for vr in ("PN", "LO", "LT", "UI", "IS", "DA", "US", "AT", "OB"):
        text = text_of(vr, octets, codecs_of(terms))
        assert "\0" not in text
        text.encode("utf-8")
        keys_of(vr, text)


@pytest.mark.parametrize(
    ("vr", "octets", "text"),
    [
        ("LO", b" a \\ b ", "a\\b"),
        pytest.param("LT", b"  a\\b  ", "  a\\b", id="leading spaces of LT, and a backslash"),
        ("UC", b" a ", " a"),
        ("UI", b"1.2\0", "1.2"),
        ("LO", b"a\0b\0\0", "ab"),
        ("IS", b"+007\\-1 \\x", "7\\-1\\x"),
        pytest.param("PN", b"^^^^", "", id="a name of nothing"),
        ("PN", b"Doe^John ", "Doe^John"),
        ("OB", b"abc", ""),
        ("US", struct.pack("<HH", 1, 2), "1\\2"),
        pytest.param("US", b"\1\0\2", "1", id="half a number"),
        ("FD", struct.pack("<d", 1.5), "1.5"),
        ("AT", struct.pack("<HH", 0x18, 0x1063), "00181063"),
    ],
)
def test_values_become_text(vr: str, octets: bytes, text: str) -> None:
    assert text_of(vr, octets, LATIN) == text


def test_big_endian_numbers_become_text() -> None:
    assert text_of("SS", struct.pack(">h", -2), LATIN, little_endian=False) == "-2"
    assert text_of("AT", b"\0\x18\x10\x63", LATIN, little_endian=False) == "00181063"


def test_halves_of_surrogate_pairs_are_replaced() -> None:
    assert values.trimmed("LO", "a\udc80b ") == "a?b"


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Doe", "doe"),
        ("STRAßE", "straße"),
        ("\u03a3\u03c2\u03c3", "\u03c3\u03c3\u03c3"),
        pytest.param("u\u0308", "ü", id="composed"),
        pytest.param("İ", "İ", id="one character stays one"),
    ],
)
def test_names_are_folded(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(text=st.text(max_size=20))
def test_folding_keeps_the_number_of_characters(text: str) -> None:
    """``?`` is one character, folded or not."""
    import unicodedata

    assert len(fold(text)) == len(unicodedata.normalize("NFC", text))
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("Doe^John^^^", ("doe^john", "", "")),
        (" Doe ^ John ", ("doe^john", "", "")),
        ("A=B=C", ("a", "b", "c")),
        ("A=B=C=D", ("a", "b", "c=d")),
        ("=B", ("", "b", "")),
    ],
)
def test_names_have_three_groups(name: str, groups: tuple[str, str, str]) -> None:
    """PS3.5 6.2.1."""
    assert values.person_name(name) == groups


@pytest.mark.parametrize(
    ("name", "sounds"),
    [
        ("Robert", "R163"),
        ("Rupert", "R163"),
        ("Ashcraft", "A261"),
        ("Tymczak", "T522"),
        ("Pfister", "P236"),
        ("Honeyman", "H555"),
        ("Müller", "M460"),
        ("Weiß", "W200"),
        ("山田", "山田"),
        ("Doe^Jane-Mary", "D000 J500 M600"),
    ],
)
def test_sounds_are_soundex(name: str, sounds: str) -> None:
    """The examples of the United States' National Archives, and what they did not think of."""
    assert values.sound(name) == f" {sounds} "


def test_nothing_has_no_sound() -> None:
    assert values.sound("^12 3") == ""


@pytest.mark.parametrize(
    ("vr", "text", "keys"),
    [
        ("DA", "20240229", ("20240229",)),
        ("DA", "2024.02.29", ("20240229",)),
        ("DA", "20230229", ("",)),
        ("DA", "2024.0229", ("",)),
        ("DA", "", ("",)),
        ("TM", "10", ("100000000000",)),
        ("TM", "10:15:30.5", ("101530500000",)),
        ("TM", "235960", ("235960000000",)),
        ("TM", "24", ("",)),
        ("DS", "70.50", ("70.5",)),
        ("DS", "heavy", ("",)),
        ("PN", "", ("", "", "", "")),
    ],
)
def test_keys_sort(vr: str, text: str, keys: tuple[str, ...]) -> None:
    assert keys_of(vr, text) == keys


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024", Moment("20240101" + "0" * 12, "20241231235959999999")),
        ("202402", Moment("20240201" + "0" * 12, "20240229235959999999")),
        ("20240229", Moment("20240229" + "0" * 12, "20240229235959999999")),
        ("2024022910", Moment("20240229100000000000", "20240229105959999999")),
        ("20240229101530.25", Moment("20240229101530250000", "20240229101530259999")),
        ("20240101-0500", Moment("20240101050000000000", "20240102045959999999", -300)),
        ("99991231+0000", Moment("99991231" + "0" * 12, "99991231235959999999", 0)),
        # There is no later day: the end of time stays where it is.
        ("99991231-0100", Moment("99991231010000000000", "99991231235959999999", -60)),
    ],
)
def test_moments_have_their_precision(text: str, moment: Moment) -> None:
    """PS3.5 6.2, DT."""
    assert values.moment_range(text) == moment


@pytest.mark.parametrize("text", ["", "1", "0500", "20241301", "20240101101", "20240101+1500", "x"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"date|month|day"):
        values.moment_range(text)


@given(
    moment=st.datetimes(min_value=datetime(1600, 1, 1), max_value=datetime(9000, 1, 1)),  # noqa: DTZ001
    minutes=st.integers(-900, 900),
)
def test_shifting_is_adding(moment: datetime, minutes: int) -> None:
    form = "%Y%m%d%H%M%S%f"
    later = (moment + timedelta(minutes=minutes)).strftime(form)
    assert values.shifted(moment.strftime(form), minutes) == later


@given(day=st.dates())
def test_every_day_is_a_date(day: date) -> None:
    text = f"{day.year:04}{day.month:02}{day.day:02}"
    assert values.date_range(text) == Moment(text, text)


@pytest.mark.parametrize(("text", "minutes"), [("+0000", 0), ("-0330", -210), ("+1400", 840)])
def test_offsets_are_minutes(text: str, minutes: int) -> None:
    """PS3.3 C.12.1.1.8."""
    assert values.offset_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "0100", "+1", "+1500", "+0160"])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="offset"):
        values.offset_minutes(text)
