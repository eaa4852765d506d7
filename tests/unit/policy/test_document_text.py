from __future__ import annotations

import gzip
import io
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.policy import document_text
from supervisor.policy.document_text import MAX_ENTRIES, MAX_OUT_BYTES, Document

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def read(data: bytes) -> tuple[str, Document]:
    document = Document(lambda count, offset: data[offset : offset + count])
    return "".join(document.texts()), document


def packed(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_plain_text_is_read_in_its_encoding(encoding: str) -> None:
    text, document = read(("name,SSN\nGrün,536-90-4399\n" * 9000).encode(encoding))
    assert text.lstrip("\ufeff") == "name,SSN\nGrün,536-90-4399\n" * 9000
    assert document.complete


def test_runs_of_a_word_document_are_one_text() -> None:
    body = f'<w:document xmlns:w="{WORD}"><w:p><w:r><w:t>4111 11</w:t></w:r>'
    body += "<w:r><w:t>11 1111 1111</w:t></w:r></w:p><w:p/></w:document>"
    text, document = read(packed({"[Content_Types].xml": b"<Types/>", "word/document.xml": body.encode()}))
    assert "4111 1111 1111 1111\n" in text
    assert document.complete


def test_shared_strings_of_a_workbook_come_first() -> None:
    sheet = b"<worksheet><sheetData><row><c><v>4242424242424242</v></c><c><v>17</v></c></row></sheetData></worksheet>"
    text, document = read(
        packed(
            {
                "[Content_Types].xml": b"<Types/>",
                "xl/worksheets/sheet1.xml": sheet,
                "xl/sharedStrings.xml": b"<sst><si><t>Card</t></si></sst>",
                "xl/media/image1.png": b"\x89PNG...",
            }
        )
    )
    assert text.index("Card\n") < text.index("4242424242424242\n")
    assert document.complete


def test_an_open_document_and_a_gzip_and_a_zip_are_read() -> None:
    content = b'<o:c xmlns:o="urn:o" xmlns:t="urn:t"><t:p>hello<t:span> world</t:span></t:p></o:c>'
    assert "hello world\n" in read(packed({"mimetype": b"application/x", "content.xml": content}))[0]
    assert read(gzip.compress(b"hello" * 50_000))[0] == "hello" * 50_000
    assert "secret text" in read(packed({"a/b.txt": b"secret text"}))[0]


ENTITIES = "".join(f'<!ENTITY l{at} "{f"&l{at - 1};" * 10}">' for at in range(1, 12))
BOMBS = {
    "laughs": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{ENTITIES}]><x>&l11;</x>',
    "quadratic": f'<!DOCTYPE x [<!ENTITY a "{"a" * 50_000}">]><x>{"&a;" * 50_000}</x>',
    "external": '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>',
    "parameter": '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/x"> %p;]><x/>',
    "dtd": '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><x/>',
}


@pytest.mark.parametrize("bomb", sorted(BOMBS))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_entity_bomb_is_refused_at_its_declaration(bomb: str, encoding: str) -> None:
    started = time.process_time()
    text, document = read(packed({"mimetype": b"x", "content.xml": BOMBS[bomb].encode(encoding)}))
    assert "document type declaration" in document.why
    assert not document.complete
    assert "root:" not in text
    assert len(text) < 1000
    assert time.process_time() - started < 2


def test_deeply_nested_xml_is_read_in_step_with_its_length() -> None:
    text, document = read(packed({"mimetype": b"x", "content.xml": b"<p>" * 200_000 + b"x"}))
    assert not document.complete
    assert len(text) < 100


def test_a_bomb_of_zeros_is_refused_by_its_ratio() -> None:
    started = time.process_time()
    zeros = b" " * (40 << 20)
    for bomb in (packed({"a.txt": zeros}), gzip.compress(zeros, 9), packed({"mimetype": b"x", "content.xml": zeros})):
        text, document = read(bomb)
        assert not document.complete
        assert document.why == "packed more than 300 times"
        assert len(text) < 16 << 20
    assert time.process_time() - started < 10


def test_what_comes_out_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_text, "MAX_RATIO", 10_000)
    entries = {f"{at}.txt": b" " * (8 << 20) for at in range(12)}
    document = Document(lambda count, offset: data[offset : offset + count])
    data = packed(entries)
    assert sum(map(len, document.texts())) <= MAX_OUT_BYTES + 1000
    assert not document.complete


def test_entries_that_overlap_are_bounded_like_others() -> None:
    kernel = packed({"a.txt": b"x" * 100_000})
    start = kernel.index(b"PK\x01\x02")
    end = kernel.index(b"PK\x05\x06")
    central = kernel[start:end] * 3000
    tail = bytearray(kernel[end:])
    tail[8:12] = (3000).to_bytes(2, "little") * 2
    tail[12:16] = len(central).to_bytes(4, "little")
    document = Document(lambda count, offset: data[offset : offset + count])
    data = kernel[:start] + central + bytes(tail)
    assert sum(map(len, document.texts())) <= MAX_OUT_BYTES + 100_000
    assert not document.complete


def test_too_many_entries_are_refused() -> None:
    _, document = read(packed({str(at): b"" for at in range(MAX_ENTRIES + 1)}, zipfile.ZIP_STORED))
    assert "entries" in document.why


@pytest.mark.parametrize(
    "data",
    [
        packed({"inner.zip": packed({"a": b"x"})}),
        packed({"inner.gz": gzip.compress(b"x")}),
        gzip.compress(packed({"a": b"x"})),
        gzip.compress(gzip.compress(b"x")),
        gzip.compress(b"x")[:-4],
        gzip.compress(b"x") + gzip.compress(b"y"),
        packed({"mimetype": b"x", "word/embeddings/oleObject1.bin": b"\xd0\xcf\x11\xe0"}),
        packed({"mimetype": b"x", "content.xml": b"<a><b></a>"}),
        packed({"a.txt": b"hello world"})[:-30],
        b"%PDF-1.7 text",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"text\0with\0zeros\0",
    ],
    ids=str,
)
def test_what_is_not_wholly_read_is_incomplete(data: bytes) -> None:
    assert not read(data)[1].complete


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_document_never_raises(data: st.DataObject) -> None:
    good = data.draw(
        st.sampled_from([packed({"mimetype": b"x", "content.xml": b"<a>text</a>"}), gzip.compress(b"hi" * 99)])
    )
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(broken))


@given(st.binary(max_size=300))
def test_any_bytes_have_some_text(data: bytes) -> None:
    read(data)
