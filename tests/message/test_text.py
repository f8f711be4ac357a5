"""Charsets, encoded words and clean text."""

from __future__ import annotations

import base64
import codecs

import pytest

from relaymail.message import charsets, clean
from relaymail.message.encoded_words import WordDecoder
from relaymail.message.limits import ParseLimits
from tests.message.build import budget

SAMPLES = [
    ("us-ascii", "ascii", "plain"),
    ("UTF-8", "utf-8", "Grüße 你好 😀"),
    ("utf8", "utf-8", "Grüße"),
    ("utf-7", "utf-7", "Grüße"),
    ("utf-16", "utf-16", "Grüße"),
    ("utf-16le", "utf-16-le", "Grüße"),
    ("utf-16be", "utf-16-be", "Grüße"),
    ("utf-16", "utf-16-be", "Grüße"),
    ("utf-32", "utf-32-be", "Grüße"),
    ("iso-8859-1", "latin-1", "Grüße"),
    ("ISO_8859-1", "latin-1", "Grüße"),
    ("latin1", "latin-1", "Grüße"),
    ("iso-8859-2", "iso8859-2", "Zażółć gęślą jaźń"),
    ("iso-8859-5", "iso8859-5", "Привет"),
    ("iso-8859-6", "iso8859-6", "مرحبا"),
    ("iso-8859-7", "iso8859-7", "Γειά"),
    ("iso-8859-8", "iso8859-8", "שלום"),
    ("iso-8859-8-i", "iso8859-8", "שלום"),
    ("iso-8859-9", "iso8859-9", "İstanbul ğ"),
    ("iso-8859-13", "iso8859-13", "Lietuvių"),
    ("iso-8859-15", "iso8859-15", "5 €"),
    ("windows-1250", "cp1250", "Zażółć"),
    ("windows-1251", "cp1251", "Привет"),
    ("windows-1252", "cp1252", "“5 €”"),
    ("Windows-1253", "cp1253", "Γειά"),
    ("windows-1254", "cp1254", "ğüş"),
    ("windows-1255", "cp1255", "שלום"),
    ("windows-1256", "cp1256", "مرحبا"),
    ("windows-1257", "cp1257", "Lietuvių"),
    ("windows-1258", "cp1258", "Đông"),
    ("cp850", "cp850", "Grüße"),
    ("ibm866", "cp866", "Привет"),
    ("koi8-r", "koi8-r", "Привет"),
    ("koi8-u", "koi8-u", "Привіт"),
    ("gb2312", "gb2312", "你好世界"),
    ("GBK", "gbk", "你好世界镕"),
    ("gb18030", "gb18030", "你好😀"),
    ("hz-gb-2312", "hz", "你好"),
    ("big5", "big5", "你好世界"),
    ("big5-hkscs", "big5hkscs", "你好"),
    ("shift_jis", "shift_jis", "こんにちは世界"),
    ("Shift-JIS", "cp932", "①こんにちは"),
    ("iso-2022-jp", "iso2022_jp", "こんにちは世界"),
    ("euc-jp", "euc-jp", "こんにちは"),
    ("euc-kr", "euc-kr", "안녕하세요"),
    ("ks_c_5601-1987", "cp949", "안녕하세요 뷁"),
    ("iso-2022-kr", "iso2022_kr", "안녕하세요"),
    ("tis-620", "tis-620", "สวัสดี"),
    ("windows-874", "cp874", "สวัสดี"),
    ("macintosh", "mac-roman", "Grüße"),
    (None, "utf-8", "Grüße"),
    (None, "latin-1", "Grüße"),
    ("x-unknown", "utf-8", "Grüße"),
    ("x-unknown", "latin-1", "Grüße"),
    ("us-ascii", "latin-1", "Grüße"),
    ("", "utf-8", "Grüße"),
]


@pytest.mark.parametrize(("label", "codec", "text"), SAMPLES)
def test_a_charset_of_mail_is_decoded(label: str | None, codec: str, text: str) -> None:
    data = text.encode(codec)
    assert charsets.decode(data, label).removeprefix("\ufeff") == text
    in_pieces = charsets.decode_stream(lambda: [data[n : n + 1] for n in range(len(data))], label, 1000)
    if label not in ("utf-16", "utf-32"):  # their byte order is looked for in the first piece
        assert in_pieces == charsets.decode(data, label)
    assert charsets.decode_stream(lambda: [data], label, 1000) == charsets.decode(data, label)


@pytest.mark.parametrize(("label", "codec", "text"), [each for each in SAMPLES if each[0]])
def test_a_charset_of_mail_is_decoded_in_an_encoded_word(label: str, codec: str, text: str) -> None:
    payload = base64.b64encode(text.encode(codec)).decode()
    decoded = WordDecoder(budget()).decode(f"=?{label}?B?{payload}?=").removeprefix("\ufeff")
    assert decoded == text


@pytest.mark.parametrize(
    "label",
    ["unicode_escape", "raw_unicode_escape", "zlib", "zlib_codec", "rot13", "hex", "idna", "punycode", "bz2"],
)
def test_other_codecs_of_python_are_no_charsets(label: str) -> None:
    assert charsets.lookup(label) is None
    assert charsets.decode(b"\\u0041 41 xn--a", label) == "\\u0041 41 xn--a"


def test_every_codec_of_the_list_exists_and_decodes_pieces() -> None:
    for codec in set(charsets._CODECS.values()):
        codecs.getincrementaldecoder(codec)("replace")
        assert isinstance(charsets.decode(bytes(range(256)), codec), str)


@pytest.mark.parametrize(
    "label", ["utf-8", "gb2312", "shift_jis", "iso-2022-jp", "windows-1252", "utf-7", "hz"]
)
def test_bytes_a_charset_does_not_have_become_replacement_characters(label: str) -> None:
    assert "\ufffd" in clean.body_text(charsets.decode(b"a \x81\xff\xfe\x81 b", label))


def test_a_stream_is_cut_one_character_beyond_the_limit() -> None:
    text = charsets.decode_stream(lambda: [b"\xc3", b"\xbc" * 1, "ü".encode() * 100], None, 10)
    assert text == "ü" * 11


def test_latin_1_is_the_last_resort_of_a_stream_too() -> None:
    assert charsets.decode_stream(lambda: [b"a" * 100, b"\xe4"], None, 1000) == "a" * 100 + "ä"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=?utf-8?q?a=20b_c?=", "a b c"),
        ("=?UTF-8?Q?a?= =?utf-8?B?Yg==?=", "ab"),
        ("=?utf-8?q?a?=\t \t=?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        ("x=?utf-8?q?a?=y", "xay"),
        ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),
        ("=?utf-8?b?w7w?=", "ü"),
        ("=?utf-8?b?w7w=?= =?iso-8859-1?q?=FC?=", "üü"),
        ("=?utf-8*de?q?a?=", "a"),
        ("=?iso-8859-1?q?=zz=?=", "=zz"),
        ("=?utf-8?q?with space?=", "with space"),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?never ended", "=?utf-8?q?never ended"),
        ("=??q?a?=", "=??q?a?="),
        ("=?unknown?q?=C3=BC?=", "ü"),
        ("=?unknown?q?=FC?=", "ü"),
        ("=?utf-8?b?!!!?=", ""),
        ("=?utf-8?q??=", ""),
        ("=?iso-2022-jp?b?GyRCJDMkcxsoQg==?= =?iso-2022-jp?b?GyRCJEskQRsoQg==?=", "こんにち"),
    ],
)
def test_encoded_words(text: str, expected: str) -> None:
    assert WordDecoder(budget()).decode(text) == expected


def test_encoded_words_beyond_the_limit_stay_encoded() -> None:
    account = budget(ParseLimits(encoded_words=2))
    assert WordDecoder(account).decode("=?utf-8?q?a?= " * 3) == "aa =?utf-8?q?a?= "
    assert account.status == "limited: encoded words over 2 (reader 1)"


def test_header_text_has_no_breaks_controls_or_surrogates_and_fits() -> None:
    assert (
        clean.header_text("  a\r\nb\nc\td\x00e\x1bf\ud800g\u2028h  ", 100) == "a b c d\ufffde\ufffdf\ufffdg h"
    )
    assert clean.header_text("😀" * 20, 10) == "😀" * 10
    assert clean.header_text("\u3000indented\u00a0", 100) == "\u3000indented\u00a0"


def test_body_text_keeps_its_lines() -> None:
    assert clean.body_text("a\r\nb\tc\x0c\x00") == "a\r\nb\tc\x0c\ufffd"
    assert clean.body_text("ü\x00\udc80\r\n") == "ü\ufffd\ufffd\r\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report.pdf", "report.pdf"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\windows\\system32\\evil.exe", "evil.exe"),
        ("C:\\Users\\me\\Brief.doc", "Brief.doc"),
        ("../..", ""),
        ("..", ""),
        (".", ""),
        ("a/b/", "b"),
        ("///", ""),
        ("  spaced name .txt ", "spaced name .txt"),
        (".bashrc", ".bashrc"),
        ("a\x00b\r\nc\td.txt", "abcd.txt"),
        ("annexe\u202efdp.exe", "annexefdp.exe"),
        ("Übersicht – Größe.pdf", "Übersicht – Größe.pdf"),
        ("見積書.xlsx", "見積書.xlsx"),
        ("a" * 600 + ".tar.gz", "a" * 497 + ".gz"),
        ("a" * 600, "a" * 500),
        ("a." + "b" * 600, "a." + "b" * 498),
        ("\ud800.txt", ".txt"),
    ],
)
def test_file_names_lose_paths_and_controls_and_keep_their_extension(name: str, expected: str) -> None:
    assert clean.file_name(name) == expected
