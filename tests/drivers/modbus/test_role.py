"""The role in a certificate, with certificates that OpenSSL made."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.role import ROLE_OID, role_of
from tests.peers import require


def certificate(folder: Path, *extensions: str) -> bytes:
    """A certificate with further extensions, by OpenSSL's own encoder, as DER."""
    more = [word for extension in extensions for word in ("-addext", extension)]
    command = [
        require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", "/CN=client", "-days", "1", "-keyout", str(folder / "k"), "-out", str(folder / "c"), *more,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return ssl.PEM_cert_to_DER_cert((folder / "c").read_text())


@pytest.mark.interop
@pytest.mark.parametrize("role", ["Operator", "Wärter 2"])
def test_the_role_is_read_as_openssl_wrote_it(tmp_path: Path, role: str) -> None:
    made = certificate(tmp_path, f"{ROLE_OID.dotted_string}=ASN1:UTF8String:{role}")
    # OpenSSL takes the bytes of its arguments for Latin-1.
    assert role_of(made) in {role, role.encode().decode("latin-1")}


@pytest.mark.interop
def test_a_certificate_without_a_role_has_none(tmp_path: Path) -> None:
    assert role_of(certificate(tmp_path)) is None


@pytest.mark.interop
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ASN1:PRINTABLESTRING:Operator", "found 13 08 4f 70 .* as the role, expected a UTF8String"),
        ("ASN1:UTF8String:", "found 0c 00 as the role"),
        ("DER:0c:02:ff:fe", "found ff fe as the role, expected UTF-8"),
        ("DER:0c:05:41", "found 0c 05 41 as the role"),
    ],
)
def test_a_role_that_is_none_is_said(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        role_of(certificate(tmp_path, f"{ROLE_OID.dotted_string}={text}"))


@given(st.binary(max_size=300))
def test_bytes_that_are_no_certificate_are_said(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected X\.509 in DER"):
        role_of(data)


def test_the_number_is_the_one_of_the_specification() -> None:
    """MODBUS/TCP Security Protocol Specification, R-21, as public implementations of it quote it."""
    assert x509.ObjectIdentifier("1.3.6.1.4.1.50316.802.1") == ROLE_OID
