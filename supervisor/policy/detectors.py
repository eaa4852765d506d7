"""Sensitive data in text: found while it streams by, in linear time, and told of without the value itself.

One set for the classifier, the network door and `apply`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from stdnum import iban, luhn, numdb

from supervisor.policy.national_ids import NATIONAL_IDS, NationalId
from supervisor.policy.secrets_in_text import FORMS

CHUNK: Final = 1 << 17
# Longer than any match and its context: what lies across two chunks is seen whole in one.
_OVERLAP: Final = 16384
_HEAD: Final = 4096
_NEAR_BEFORE: Final = 100
_NEAR_AFTER: Final = 40
# More of one kind changes no decision; it bounds what a hostile text costs.
MOST: Final = 1000
# Of the bare digit runs that could be cards, what must be one: a tenth passes Luhn by chance.
_CARD_SHARE: Final = 0.3

PAYMENT_CARD: Final = "payment-card"
IBAN: Final = "iban"
NATIONAL_ID: Final = "national-id"
EMAIL: Final = "email-address"

_DIGITS: Final = re.compile(r"(?<![0-9A-Za-z._\-])[0-9]{14,19}+(?![0-9A-Za-z_]|[.\-][0-9])")
_GROUPS: Final = re.compile(
    r"(?<![0-9A-Za-z])"
    r"(?:[0-9]{4}([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?|3[0-9]{3}([ \-])[0-9]{6}\2[0-9]{4,5})"
    r"(?![0-9A-Za-z]|[ \-][0-9])"
)
_CARD_WORDS: Final = ("card", "visa", "mastercard", "amex", "kreditkarte", "carte", "tarjeta", "cvv", "cvc")
_IBAN: Final = re.compile(r"(?<![0-9A-Za-z])(?=[A-Za-z]{2}[0-9]{2}((?:[ \-]?[0-9A-Za-z]){11,30}+))")
_EMAIL: Final = re.compile(r"(?<=[A-Za-z0-9])@[A-Za-z0-9\-]{1,63}+\.[A-Za-z]{2}")
# First and last prefix, lengths: ISO/IEC 7812 ranges as the schemes publish them. 13-digit Visa is history.
_ISSUERS: Final = (
    (4, 4, (16, 19)),
    (51, 55, (16,)),
    (2221, 2720, (16,)),
    (34, 34, (15,)),
    (37, 37, (15,)),
    (6011, 6011, (16, 19)),
    (644, 659, (16, 19)),
    (3528, 3589, (16, 19)),
    (300, 305, (14, 16)),
    (36, 36, (14, 16)),
    (38, 39, (14, 16)),
    (62, 62, (16, 17, 18, 19)),
    (6759, 6763, (16,)),
)

Markers = Mapping[str, tuple[str, ...]]
"""Data class → words or phrases, in lower case, that mark a text as holding it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """What one detector found: how often (up to `MOST`), and at which character first. Never the value."""

    data_class: str
    detector: str
    count: int
    first_at: int

    def describe(self) -> str:
        """Return it in words for people."""
        return f"{self.detector}: {'at least ' if self.count >= MOST else ''}{self.count}"


def scan(text: str | bytes | Iterable[str], markers: Markers | None = None) -> tuple[Hit, ...]:
    """Return what is found in *text*, which may come in pieces."""
    scanner = Scanner(markers or {})
    pieces = [text.decode("utf-8", "replace")] if isinstance(text, bytes) else [text] if isinstance(text, str) else text
    for piece in pieces:
        scanner.feed(piece)
    return scanner.finish()


@dataclass(slots=True)
class Scanner:
    """Looks at text as it comes; holds a chunk of it at most."""

    markers: Markers
    _waiting: str = ""
    _begin: int = 0  # what lies before it in `_waiting` was looked at, and stays as context
    _offset: int = 0  # of `_waiting` in the whole
    _head: str = ""
    _found: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    _bare: int = 0
    _bare_cards: list[int] = field(default_factory=list)

    def feed(self, text: str) -> None:
        """Take the next piece, of any size."""
        if len(self._head) < _HEAD:
            self._head += text[: _HEAD - len(self._head)].lower()
        for at in range(0, len(text), CHUNK):
            self._waiting += text[at : at + CHUNK]
            if len(self._waiting) >= CHUNK:
                self._look(len(self._waiting) - _OVERLAP)

    def finish(self) -> tuple[Hit, ...]:
        """Look at the rest; returns what was found, the most telling first."""
        self._look(len(self._waiting))
        if self._bare_cards and (
            len(self._bare_cards) >= self._bare * _CARD_SHARE or any(word in self._head for word in _CARD_WORDS)
        ):
            for at in self._bare_cards:
                self._add(PAYMENT_CARD, "payment card number", at)
        found = (Hit(*key, len(places), min(places)) for key, places in self._found.items())
        return tuple(sorted(found, key=lambda hit: (-hit.count, hit.data_class, hit.detector)))

    def _add(self, data_class: str, detector: str, at: int) -> None:
        places = self._found.setdefault((data_class, detector), [])
        if len(places) < MOST:
            places.append(at)

    def _is_full(self, data_class: str, detector: str) -> bool:
        return len(self._found.get((data_class, detector), ())) >= MOST

    def _look(self, end: int) -> None:
        """Count what begins before *end* in the waiting text, then keep what may be needed again."""
        text = self._waiting
        lower = text.lower()
        if len(lower) != len(text):  # a letter whose lower case is two: positions would shift
            lower = "".join(one if len(one) == 1 else "?" for one in map(str.lower, text))
        for form in FORMS:
            looked_at = lower if form.folded else text
            if any(needle in looked_at for needle in form.needles):
                self._each(form.data_class, form.name, form.pattern, looked_at, end)
        self._each(IBAN, "IBAN", _IBAN, text, end, _is_iban)
        self._each(EMAIL, "e-mail address", _EMAIL, text, end)
        self._each(PAYMENT_CARD, "payment card number", _GROUPS, text, end, _is_card)
        self._look_for_bare_cards(text, lower, end)
        for kind in NATIONAL_IDS:
            self._look_for_id(kind, text, lower, end)
        for data_class, words in self.markers.items():
            for word in words:
                if word in lower:
                    self._each(data_class, f"the words “{word}”", _word(word), lower, end)
        keep = max(0, end - _OVERLAP)
        self._waiting, self._begin, self._offset = text[keep:], end - keep, self._offset + keep

    def _each(
        self,
        data_class: str,
        detector: str,
        pattern: re.Pattern[str],
        text: str,
        end: int,
        is_valid: Callable[[re.Match[str]], bool] | None = None,
    ) -> None:
        if self._is_full(data_class, detector):
            return
        for match in pattern.finditer(text):
            if self._begin <= match.start() < end and (is_valid is None or is_valid(match)):
                self._add(data_class, detector, self._offset + match.start())

    def _look_for_bare_cards(self, text: str, lower: str, end: int) -> None:
        for match in _DIGITS.finditer(text):
            if not self._begin <= match.start() < end:
                continue
            self._bare += 1
            if len(self._bare_cards) >= MOST or not _is_card(match):
                continue
            if _is_near(_CARD_WORDS, lower, match):
                self._add(PAYMENT_CARD, "payment card number", self._offset + match.start())
            else:
                self._bare_cards.append(self._offset + match.start())

    def _look_for_id(self, kind: NationalId, text: str, lower: str, end: int) -> None:
        in_head = any(_word(word).search(self._head) for word in kind.words)
        if kind.words and not in_head and not any(word in lower for word in kind.words):
            return
        if self._is_full(NATIONAL_ID, kind.name):
            return
        for match in kind.pattern.finditer(text):
            if (
                self._begin <= match.start() < end
                and (not kind.words or in_head or _is_near(kind.words, lower, match))
                and kind.is_valid(match[0])
            ):
                self._add(NATIONAL_ID, kind.name, self._offset + match.start())


@functools.lru_cache(maxsize=512)
def _word(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])")


def _is_near(words: tuple[str, ...], lower: str, match: re.Match[str]) -> bool:
    around = lower[max(0, match.start() - _NEAR_BEFORE) : match.end() + _NEAR_AFTER]
    return any(word in around and _word(word).search(around) for word in words)


def _is_card(match: re.Match[str]) -> bool:
    number = match[0].replace(" ", "").replace("-", "")
    if not number[6:].strip("0"):  # 4000 0000 0000 0000 and the like fill forms
        return False
    issued = any(
        len(number) in lengths and first <= int(number[: len(str(first))]) <= last for first, last, lengths in _ISSUERS
    )
    return issued and luhn.is_valid(number)


def _is_iban(match: re.Match[str]) -> bool:
    """Tell whether an IBAN begins there; words behind it may have been taken along."""
    number = match.string[match.start() : match.end(1)].replace(" ", "").replace("-", "").upper()
    length = _iban_length(number[:2])
    return 0 < length <= len(number) and iban.is_valid(number[:length], check_country=False)


@functools.lru_cache(maxsize=1024)
def _iban_length(country: str) -> int:
    """Return how long that country's IBANs are, 0 when it has none."""
    structure = numdb.get("iban").info(country)[0][1].get("bban", "")
    return 4 + sum(map(int, re.findall("[0-9]+", structure))) if structure else 0
