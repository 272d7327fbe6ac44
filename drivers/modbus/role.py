"""The role that a certificate gives its bearer, MODBUS/TCP Security Protocol Specification v36, R-21 to R-23.

An extension with OID 1.3.6.1.4.1.50316.802.1 holds it as an ASN.1 UTF8String; a certificate without one has
no role. Which role may do what is the server's to say.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509

ROLE_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.50316.802.1")
ROLE_BYTES_MAX: Final = 127  # as long as its length fits one byte; longer ones are not taken for roles
_UTF8_STRING: Final = 0x0C  # ITU-T X.690 §8.23.5.1, universal tag 12


def role_of(certificate: bytes) -> str | None:
    """The role in a DER certificate; None without one.

    Raises `ValueError`, for people, for one that is wrong.

    Two role extensions are one too many: nobody can tell which was meant.
    """
    try:
        extension = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_oid(ROLE_OID)
    except x509.ExtensionNotFound:
        return None
    except x509.DuplicateExtension as error:
        raise ValueError(f"found the extension {error.oid.dotted_string} twice, expected it once") from None
    except ValueError as error:
        raise ValueError(
            f"found a certificate that cannot be read ({error}), expected X.509 in DER"
        ) from None
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    data = extension.value.value
    if len(data) < 3 or data[0] != _UTF8_STRING or data[1] != len(data) - 2 or data[1] > ROLE_BYTES_MAX:
        shown = data[:16].hex(" ")
        raise ValueError(
            f"found {shown} as the role, expected a UTF8String of 1 to {ROLE_BYTES_MAX} bytes in DER"
        )
    try:
        return data[2:].decode()
    except UnicodeDecodeError:
        raise ValueError(f"found {data[2:18].hex(' ')} as the role, expected UTF-8") from None
