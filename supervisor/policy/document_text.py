"""The text of a document, as far as it can be had without trusting the document.

Read: plain text (UTF-8, UTF-16), gzip, zip, and zip with XML (docx, xlsx, pptx, odt, ods, …). A document type
declaration in XML is refused: entity bombs need one, office files have none. What is not understood (PDF, old binary
office files, encrypted or nested archives, embedded objects), too large or damaged makes the answer incomplete.
Pictures are not read, and do not count as incomplete inside a document.
"""

from __future__ import annotations

import codecs
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Final
from xml.parsers import expat

MAX_OUT_BYTES: Final = 64 << 20
MAX_CONTAINER_BYTES: Final = 64 << 20
MAX_ENTRIES: Final = 5000
# XML of spreadsheets packs a hundredfold; deflate can pack a thousandfold.
MAX_RATIO: Final = 300
_FREE_BYTES: Final = 1 << 20  # of an entry, before its ratio counts
_BLOCK: Final = 1 << 16
_NOT_TEXT: Final = (
    b"%PDF",
    b"\xd0\xcf\x11\xe0",  # OLE: doc, xls, ppt, encrypted office files
    b"7z\xbc\xaf",
    b"Rar!",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",  # zstd
    b"SQLite format 3",
    b"\x7fELF",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
)
_PICTURES: Final = (".png", ".jpg", ".jpeg", ".gif", ".emf", ".wmf", ".svg", ".tif", ".tiff", ".bmp", ".webp")
_XML: Final = (".xml", ".rels", ".vml")
# Elements after which a value ends; within one, runs of differing style are one text.
_BREAKS: Final = frozenset(
    ("p", "h", "si", "v", "tc", "c", "row", "is", "tab", "br", "cr", "s", "line-break", "table-cell")
)

Read = Callable[[int, int], bytes]
"""``pread``: count and offset; empty at the end."""


class _Refused(Exception):
    """This part of the document is not read on."""


@dataclass(slots=True)
class Document:
    """One document while it is read.

    Attributes:
        complete: False once something of it was not looked at; *why* tells the first reason.
        left_bytes: What may still come out of it.
    """

    read: Read
    complete: bool = True
    why: str = ""
    bytes_read: int = 0
    left_bytes: int = MAX_OUT_BYTES
    _parts: list[str] = field(default_factory=list)

    def texts(self) -> Iterator[str]:
        """Yield the text in pieces. Never raises for what the document is; `OSError` of the disk passes."""
        head = self.read(_BLOCK, 0)
        try:
            if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                yield from self._archive()
            elif head.startswith(b"\x1f\x8b"):
                yield from self._gzip()
            else:
                if head.startswith(_NOT_TEXT) or (b"\0" in head and not _utf_16(head)):
                    self._miss("a format that is not read")
                yield from self._decoded(self._stored(), head)
        except _Refused as refused:
            self._miss(str(refused))
        except (zipfile.BadZipFile, zlib.error, expat.ExpatError, EOFError, NotImplementedError, RuntimeError) as error:
            self._miss(f"damaged, or not readable: {type(error).__name__}")
        except (ValueError, LookupError, MemoryError, OverflowError) as error:
            self._miss(f"not readable: {type(error).__name__}")

    def _miss(self, why: str) -> None:
        self.complete = False
        self.why = self.why or why

    def _take(self, count: int) -> None:
        self.left_bytes -= count
        if self.left_bytes < 0:
            raise _Refused(f"more than {MAX_OUT_BYTES} bytes of text")

    def _stored(self) -> Iterator[bytes]:
        while block := self.read(_BLOCK, self.bytes_read):
            self.bytes_read += len(block)
            self._take(len(block))
            yield block

    def _decoded(self, blocks: Iterator[bytes], head: bytes) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(_utf_16(head) or "utf-8")("replace")
        for block in blocks:
            yield decoder.decode(block)
        yield decoder.decode(b"", final=True)

    def _gzip(self) -> Iterator[str]:
        blocks = self._inflated()
        first = next(blocks, b"")
        if first.startswith((b"PK\x03\x04", b"\x1f\x8b", *_NOT_TEXT)) or first[257:262] == b"ustar":
            self._miss("an archive in an archive")
        yield from self._decoded(_chain(first, blocks), first)

    def _inflated(self) -> Iterator[bytes]:
        inflate = zlib.decompressobj(wbits=31)
        came = 0
        for block in self._stored():
            data = block
            while data and not inflate.eof:
                out = inflate.decompress(data, _BLOCK)
                came += len(out)
                self._check_ratio(came, self.bytes_read)
                self._take(len(out))
                yield out
                data = inflate.unconsumed_tail
        if not inflate.eof or inflate.unused_data:
            self._miss("gzip: cut short, or more than one member")

    def _check_ratio(self, out: int, packed: int) -> None:
        if out > _FREE_BYTES and out > packed * MAX_RATIO:
            raise _Refused(f"packed more than {MAX_RATIO} times")

    def _archive(self) -> Iterator[str]:
        data = bytearray()
        while block := self.read(_BLOCK, len(data)):
            data += block
            if len(data) > MAX_CONTAINER_BYTES:
                raise _Refused(f"an archive of more than {MAX_CONTAINER_BYTES} bytes")
        self.bytes_read = len(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_ENTRIES:
                raise _Refused(f"{len(entries)} entries, at most {MAX_ENTRIES}")
            is_office = any(entry.filename in ("[Content_Types].xml", "mimetype") for entry in entries)
            # Headings of a workbook lie in its shared strings: they tell what the columns hold.
            entries.sort(key=lambda entry: not entry.filename.lower().endswith("sharedstrings.xml"))
            for entry in entries:
                yield from self._entry(archive, entry, is_office=is_office)

    def _entry(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, is_office: bool) -> Iterator[str]:
        name = entry.filename.lower()
        if is_office and name.endswith(_PICTURES):
            return
        if entry.flag_bits & 1:
            self._miss("encrypted")
            return
        yield name.rpartition("/")[2] + "\n"
        with archive.open(entry) as file:
            blocks = self._unpacked(file, entry.compress_size)
            first = next(blocks, b"")
            if first.startswith((b"PK\x03\x04", b"\x1f\x8b", *_NOT_TEXT)) or (b"\0" in first and not _utf_16(first)):
                self._miss("an archive, picture or object in an archive")
                return
            if name.endswith(_XML):
                yield from self._xml(_chain(first, blocks))
            else:
                yield from self._decoded(_chain(first, blocks), first)
        yield "\n"

    def _unpacked(self, file: IO[bytes], packed: int) -> Iterator[bytes]:
        came = 0
        while block := file.read(_BLOCK):
            came += len(block)
            self._check_ratio(came, packed)
            self._take(len(block))
            yield block

    def _xml(self, blocks: Iterator[bytes]) -> Iterator[str]:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = _refuse_doctype
        parser.EntityDeclHandler = _refuse_doctype
        parser.CharacterDataHandler = self._parts.append
        parser.EndElementHandler = self._break
        parser.buffer_text = True
        for block in blocks:
            parser.Parse(block, False)
            yield self._gathered()
        parser.Parse(b"", True)
        yield self._gathered()

    def _break(self, name: str) -> None:
        if name.rpartition(" ")[2] in _BREAKS:
            self._parts.append("\n")

    def _gathered(self) -> str:
        text = "".join(self._parts)
        self._parts.clear()
        return text


def _refuse_doctype(*_: object) -> None:
    raise _Refused("XML with a document type declaration")


def _utf_16(head: bytes) -> str:
    """Return the codec of text in 16-bit units, or nothing; without a mark of byte order every other byte is 0."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    sample = head[:200]
    if len(sample) < 4:
        return ""
    for start, codec in ((1, "utf-16-le"), (0, "utf-16-be")):
        if sample[start::2].count(0) > 0.9 * len(sample[start::2]) and sample[1 - start :: 2].count(0) == 0:
            return codec
    return ""


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
