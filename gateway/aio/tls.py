"""TLS contexts from the files that a configuration names, for both ends of a connection."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gateway.core.errors import ConfigError


class TlsFault(ConfigError):
    """A file that cannot be used. `key` is the configuration's word for it: ca, cert or key_file."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        super().__init__(f"found {found}, expected {expected}")
        self.key = key
        self.found = found
        self.expected = expected


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates that the peer's must come from (None: the system's), our own, and its private key. PEM."""

    ca: Path | None = None
    cert: Path | None = None
    key_file: Path | None = None

    def contents(self) -> list[tuple[str, bytes]]:
        """What the files say, to see whether it changed. Raises `TlsFault`."""
        return [(key, _read(key, path)) for key, path in self._named() if path is not None]

    def digest(self) -> str:
        """Of what the files say, "" where one cannot be read."""
        try:
            return digest(self.contents())
        except TlsFault:
            return ""

    def _named(self) -> tuple[tuple[str, Path | None], ...]:
        return (("ca", self.ca), ("cert", self.cert), ("key_file", self.key_file))


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Verifies the server and its name, and shows our certificate where there is one. TLS 1.2 or later.

    Raises `TlsFault`.
    """
    try:
        context = ssl.create_default_context(cafile=files.ca)
    except (OSError, ssl.SSLError) as error:
        raise _no_certificates(files, error) from None
    _set_up(context, files)
    return context


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Shows our certificate, and takes only clients whose own comes from `ca`. TLS 1.2 or later.

    Raises `TlsFault`; all three files are needed.
    """
    for key in ("ca", "cert", "key_file"):
        if getattr(files, key) is None:
            raise TlsFault(key, f"no {key}", "ca, cert and key_file: both sides show certificates")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cafile=files.ca)
    except (OSError, ssl.SSLError) as error:
        raise _no_certificates(files, error) from None
    _set_up(context, files)
    return context


def digest(contents: Iterable[tuple[str, bytes]]) -> str:
    """Of named contents."""
    sha256 = hashlib.sha256()
    for key, content in contents:
        sha256.update(f"{key} {len(content)} ".encode() + content)
    return sha256.hexdigest()


def _set_up(context: ssl.SSLContext, files: TlsFiles) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 began to refuse certificates without key identifiers, which plants' own authorities make.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if files.cert is None or files.key_file is None:
        return
    try:
        context.load_cert_chain(files.cert, files.key_file, password=_no_passphrase)
    except (OSError, ssl.SSLError) as error:
        found = f"{files.cert} with {files.key_file}, which do not work together: {_reason(error)}"
        raise TlsFault("cert", found, "a certificate and its key in PEM form") from None


def _no_passphrase() -> bytes:
    """A key with a passphrase must not make a service ask the terminal for it."""
    return b""


def _no_certificates(files: TlsFiles, error: OSError) -> TlsFault:
    found = f"{files.ca or 'the system'}, which holds no certificate: {_reason(error)}"
    return TlsFault("ca", found, "certificates in PEM form")


def _read(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        found = f"{path}, which cannot be read: {error.strerror}"
        raise TlsFault(key, found, "a file that we may read") from None


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)
