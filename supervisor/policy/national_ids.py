"""National identifiers, by python-stdnum's checks. Where a check passes by chance too often, a word has to stand near.

A validator that is imported here loads its tables now: the classifier can't open files later.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import stdnum.be.nn
import stdnum.br.cpf
import stdnum.ca.sin
import stdnum.ch.ssn
import stdnum.de.idnr
import stdnum.dk.cpr
import stdnum.es.dni
import stdnum.es.nie
import stdnum.fi.hetu
import stdnum.fr.nir
import stdnum.gb.nhs
import stdnum.in_.aadhaar
import stdnum.it.codicefiscale
import stdnum.nl.bsn
import stdnum.no.fodselsnummer
import stdnum.pl.pesel
import stdnum.se.personnummer
import stdnum.us.ssn

Check = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class NationalId:
    """One kind of identifier; *words* (lower case) must stand near it or in the text's head, unless empty."""

    name: str
    pattern: re.Pattern[str]
    is_valid: Check
    words: tuple[str, ...] = ()


def _id(name: str, pattern: str, is_valid: Check, words: str = "") -> NationalId:
    bounded = rf"(?<![0-9A-Za-z.\-])(?:{pattern})(?![0-9A-Za-z]|[.\-][0-9])"
    return NationalId(name, re.compile(bounded, re.ASCII), is_valid, tuple(words.split("|")) if words else ())


def _by_form(_number: str) -> bool:
    """Accept what has the form: this identifier carries no check digit."""
    return True


NATIONAL_IDS: Final = (
    _id("US social security number", r"\d{3}-\d{2}-\d{4}", stdnum.us.ssn.is_valid, "ssn|social security"),
    _id("UK NHS number", r"\d{3}[ \-]?\d{3}[ \-]?\d{4}", stdnum.gb.nhs.is_valid, "nhs"),
    _id(
        "UK national insurance number",
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
        _by_form,
        "national insurance|nino|ni number",
    ),
    _id(
        "German tax id",
        r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
        stdnum.de.idnr.is_valid,
        "steuer|idnr|identifikationsnummer|tax id|tin",
    ),
    _id(
        "French social security number",
        r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}",
        stdnum.fr.nir.is_valid,
    ),
    _id("Spanish DNI", r"\d{8}-?[A-Z]", stdnum.es.dni.is_valid, "dni|nif|identidad"),
    _id("Spanish NIE", r"[XYZ]-?\d{7}-?[A-Z]", stdnum.es.nie.is_valid),
    _id(
        "Italian fiscal code",
        r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]",
        stdnum.it.codicefiscale.is_valid,
    ),
    _id("Dutch BSN", r"\d{9}|\d{4}\.\d{2}\.\d{3}", stdnum.nl.bsn.is_valid, "bsn|burgerservice|sofi"),
    _id(
        "Belgian national number",
        r"\d{2}\.?\d{2}\.?\d{2}-?\d{3}\.?\d{2}",
        stdnum.be.nn.is_valid,
        "rijksregister|national|registre",
    ),
    _id("Polish PESEL", r"\d{11}", stdnum.pl.pesel.is_valid, "pesel"),
    _id(
        "Swedish personal number",
        r"(?:\d{2})?\d{6}[\-+]\d{4}",
        stdnum.se.personnummer.is_valid,
        "personnummer|personal number",
    ),
    _id(
        "Norwegian birth number",
        r"\d{6} ?\d{5}",
        stdnum.no.fodselsnummer.is_valid,
        "fødselsnummer|fodselsnummer|personnummer",
    ),
    _id("Danish CPR number", r"\d{6}-\d{4}", stdnum.dk.cpr.is_valid, "cpr"),
    _id(
        "Finnish personal code",
        r"\d{6}[A-FU-Y+\-]\d{3}[0-9A-Y]",
        stdnum.fi.hetu.is_valid,
        "hetu|henkilötunnus|personal identity",
    ),
    _id("Swiss AHV number", r"756\.?\d{4}\.?\d{4}\.?\d{2}", stdnum.ch.ssn.is_valid),
    _id("Brazilian CPF", r"\d{3}\.\d{3}\.\d{3}-\d{2}", stdnum.br.cpf.is_valid),
    _id("Indian Aadhaar", r"[2-9]\d{3} ?\d{4} ?\d{4}", stdnum.in_.aadhaar.is_valid, "aadhaar|uidai"),
    _id("Canadian SIN", r"\d{3}[ \-]?\d{3}[ \-]?\d{3}", stdnum.ca.sin.is_valid, "sin number|social insurance"),
)
