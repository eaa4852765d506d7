from __future__ import annotations

import random
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import iban, luhn

from supervisor.policy.detectors import MOST, scan


def counts(text: str | bytes, **markers: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for hit in scan(text, markers):
        found[hit.data_class] = found.get(hit.data_class, 0) + hit.count
    return found


def letters(seed: int, length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    source = random.Random(seed)
    return "".join(source.choice(alphabet) for _ in range(length))


PEM = "-----BEGIN {}PRIVATE KEY-----\nMIIEvQ\n"


@pytest.mark.parametrize(
    ("text", "data_class"),
    [
        ("card 4111 1111 1111 1111 exp", "payment-card"),
        ("4111-1111-1111-1111", "payment-card"),
        ("a,4242424242424242,12/27", "payment-card"),
        ("amex 3782 822463 10005", "payment-card"),
        ("378282246310005", "payment-card"),
        ("5555555555554444", "payment-card"),
        ("2223003122003222", "payment-card"),
        ("6011111111111117", "payment-card"),
        ("3530111333300000", "payment-card"),
        ("DE89 3704 0044 0532 0130 00 and more words", "iban"),
        ("pay to GB29NWBK60161331926819.", "iban"),
        ("de89370400440532013000", "iban"),
        ("AB12 some words here DE89370400440532013000", "iban"),
        ("SSN: 536-90-4399", "national-id"),
        ("name,ssn\n" + "x," * 80 + "536-90-4399", "national-id"),
        ("1 84 12 76 451 089 46", "national-id"),
        ("RCCMNL83S18D969H", "national-id"),
        ("AHV 756.9217.0769.85", "national-id"),
        ("DNI 54362315K", "national-id"),
        ("pesel 44051401359", "national-id"),
        ("CPF 390.533.447-05", "national-id"),
        (PEM.format("RSA "), "private-key"),
        (PEM.format("OPENSSH "), "private-key"),
        (PEM.format(""), "private-key"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----", "private-key"),
        ("AGE-SECRET-KEY-1" + letters(1, 58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"), "private-key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "private-key"),
        ("AKIA" + letters(2, 16, "ABCDEFGHIJ234567"), "cloud-credential"),
        ("aws_secret_access_key = " + letters(3, 40), "cloud-credential"),
        ('"SecretAccessKey": "' + letters(3, 40), "cloud-credential"),
        ('{"type": "service_account", "project_id": "x"}', "cloud-credential"),
        ("AIza" + letters(4, 35), "cloud-credential"),
        ("AccountKey=" + letters(5, 86) + "==", "cloud-credential"),
        ("abc8Q~" + letters(6, 34), "cloud-credential"),
        ("ghp_" + letters(7, 36), "cloud-credential"),
        ("github_pat_" + letters(8, 82), "cloud-credential"),
        ("glpat-" + letters(9, 20), "cloud-credential"),
        ("xoxb-" + letters(10, 24), "cloud-credential"),
        ("sk_live_" + letters(11, 24), "cloud-credential"),
        ("sk-ant-api03-" + letters(12, 80), "cloud-credential"),
        ("sk-proj-" + letters(13, 80), "cloud-credential"),
        ("eyJ" + letters(14, 30) + ".eyJ" + letters(15, 60) + "." + letters(16, 43), "cloud-credential"),
        ("PROD_DB_PASSWORD=hunter2hunter2", "production-secret"),
        ("production.api.token: 'abcdefgh12345'", "production-secret"),
    ],
)
def test_each_kind_is_found(text: str, data_class: str) -> None:
    assert data_class in counts(text), counts(text)
    assert data_class in counts(f"x {text} y".encode())


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # Luhn
        "1795445081403844",  # microseconds
        "1795445081403844516",  # nanoseconds
        "20261123143005123456",
        "3.141592653589793238",
        "0.4111111111111111",
        "order-4111111111111111-x",
        "4000000000000000",
        "GB29NWBK60161331926818",
        "536-90-4399",  # without a word
        "SSN 000-12-3456",
        "sk-this-is-a-css-class-name-that-goes-on-and-on-and-on",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----",
        "AKIAIOSFODNN7EXAMPLE1234",
        "prod_db_password = ${VAULT}",
        "production token",
        "eyJhbGciOi",
        "a7b3c9d2-4111-1111-1111-111111111111",
        "dependencies@1.2.3",
    ],
)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert counts(text) == {}


def test_a_corpus_of_harmless_numbers_yields_no_cards_and_no_ids() -> None:
    source = random.Random(7)
    lines = [
        (
            f"{number},{source.randrange(10**15, 10**16)},{1795445081403844 + number},{source.random()},"
            f"{source.randrange(10**8, 10**9)},{source.getrandbits(64):016x},192.168.{number % 256}.{number % 251},"
            f"2026-11-{number % 28 + 1:02} 12:00:{number % 60:02}"
        )
        for number in range(4000)
    ]
    assert counts("id,order,time,value,ref,hash,ip,at\n" + "\n".join(lines)) == {}


def test_a_column_of_cards_is_found_whole() -> None:
    source = random.Random(8)
    cards = []
    for _ in range(300):
        body = "4" + "".join(source.choice(string.digits) for _ in range(14))
        cards.append(body + luhn.calc_check_digit(body))
    assert counts("\n".join(f"{at};{card};x" for at, card in enumerate(cards))) == {"payment-card": 300}


def test_a_column_of_identifiers_is_told_by_its_heading() -> None:
    rows = "\n".join(f"{number},536-90-{4000 + number}" for number in range(900))
    assert counts("id,SSN\n" + rows)["national-id"] == 900
    assert counts("id,part\n" + rows) == {}


def test_words_that_mark_a_text_are_whole_words_in_any_case() -> None:
    text = "Streng VERTRAULICH. Patientenakte; a patient, another Patient's"
    assert counts(text, phi=("patient",), marked=("streng vertraulich",)) == {"phi": 2, "marked": 1}


@settings(max_examples=12)
@given(st.integers(0, 200_000), st.sampled_from(["a ", "1 ", "é", "\n"]))
def test_a_value_is_found_once_wherever_the_chunks_are_cut(at: int, filler: str) -> None:
    text = (filler * 200_000)[:at] + " DE89 3704 0044 0532 0130 00 \n" + filler * 100
    found = [hit for hit in scan(text) if hit.data_class == "iban"]
    assert [(hit.count, hit.first_at) for hit in found] == [(1, at + 1)]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 3000), max_size=12))
def test_pieces_of_any_size_give_the_same_as_the_whole(sizes: list[int]) -> None:
    text = ("x 4111 1111 1111 1111 y ghp_" + letters(7, 36) + " SSN 536-90-4399 \n") * 40
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    assert scan([*pieces, text[at:]]) == scan(text)


def test_what_is_told_never_holds_the_value() -> None:
    values = ["4111 1111 1111 1111", "DE89370400440532013000", "ghp_" + letters(7, 36), "536-90-4399"]
    text = repr([(hit, hit.describe()) for hit in scan("SSN " + " \n ".join(values))])
    assert not any(value[:6] in text or value[-4:] in text for value in values)
    assert len(scan(" ".join(values) + " SSN")) == 4


def test_counts_are_bounded() -> None:
    found = scan("DE89370400440532013000 " * (MOST + 500))
    assert [hit.count for hit in found] == [MOST]
    assert found[0].describe() == f"IBAN: at least {MOST}"


def test_every_iban_of_stdnums_table_counts() -> None:
    for number in ("FR1420041010050500013M02606", "NL91ABNA0417164300", "CH9300762011623852957", "NO9386011117947"):
        assert iban.is_valid(number)
        assert counts(f"x {number} y") == {"iban": 1}


HOSTILE = {
    "digits": "1" * 40_000,
    "spaced": "4111 " * 40_000,
    "jwt": "eyJ" * 66_000,
    "jwt-dots": "eyJaaaaaaaaaaaa." * 12_000,
    "prod": "prod_" * 40_000,
    "prod-letters": ("prod_" + "a_" * 30) * 3_000,
    "live": "live." * 40_000,
    "iban": "DE89" * 50_000,
    "iban-spaced": "DE89 " * 40_000,
    "at": "a@" * 100_000,
    "sk": "sk-" * 66_000,
    "sk-letters": ("sk-" + "a" * 60 + " ") * 3_000,
    "ssn": "ssn " + "123-45-6789 " * 16_000,
    "secret": "secret_access_key" * 11_000,
    "service": '"type" : "service_accoun' * 8_000 + "service_account",
    "dashes": "-----BEGIN " * 18_000 + "PRIVATE",
    "cards": "4242424242424242 " * 11_000,
    "lower": "İ" * 100_000,
    "spaces": "secret_access_key" + " " * 40_000,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_text_takes_time_in_step_with_its_length(name: str) -> None:
    text = HOSTILE[name]
    took = []
    for part in (text[: len(text) // 4], text):
        started = time.process_time()
        scan(part)
        took.append(time.process_time() - started)
    assert took[1] < 4 * 4 * took[0] + 0.5, took
    assert took[1] < 20, took
