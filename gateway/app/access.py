"""What opens a broker's door: passwords, certificates and keys, read and tried before anything is stopped."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gateway.config.site import Site, UplinkSpec
from gateway.core.errors import Problem
from gateway.uplink.mqtt.config import MqttUplink


class Access(msgspec.Struct, frozen=True):
    """For one uplink. `digest` tells whether the files say something else than before."""

    password: bytes | None
    tls: ssl.SSLContext | None
    digest: str


def open_access(site: Site, spec: UplinkSpec) -> tuple[Access | None, list[Problem]]:
    """Read the files that an uplink names; None with every fault found where one cannot be used."""
    model = spec.model
    assert isinstance(model, MqttUplink)
    problems: list[Problem] = []
    named = {key: getattr(model, key) for key in ("password_file", "ca", "cert", "key_file")}
    contents: dict[str, bytes] = {}
    for key, name in named.items():
        if name is None:
            continue
        path = site.directory / name
        try:
            contents[key] = path.read_bytes()
        except OSError as error:
            found = f"{path}, which cannot be read: {error.strerror}"
            problems.append(Problem((*spec.path, key), found, "a file that we may read"))
    tls = None
    if model.url.is_tls and not problems:
        tls, problems = _tls_context(site.directory, spec, model)
    if problems:
        return None, problems
    password = contents.get("password_file")
    return (
        Access(
            password=None if password is None else password.rstrip(b"\r\n"),
            tls=tls,
            digest=_digest(contents.items()),
        ),
        [],
    )


def _tls_context(
    directory: Path, spec: UplinkSpec, model: MqttUplink
) -> tuple[ssl.SSLContext | None, list[Problem]]:
    """Verifies the broker, and shows our certificate where there is one."""
    try:
        context = ssl.create_default_context(cafile=None if model.ca is None else directory / model.ca)
    except (OSError, ssl.SSLError) as error:
        found = f"{directory / (model.ca or '')}, which holds no certificate: {_reason(error)}"
        return None, [Problem((*spec.path, "ca"), found, "certificates in PEM form")]
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if model.cert is not None and model.key_file is not None:
        cert, key = directory / model.cert, directory / model.key_file
        try:
            context.load_cert_chain(cert, key, password=_no_passphrase)
        except (OSError, ssl.SSLError) as error:
            found = f"{cert} with {key}, which do not work together: {_reason(error)}"
            return None, [Problem((*spec.path, "cert"), found, "a certificate and its key in PEM form")]
    return context, []


def _no_passphrase() -> bytes:
    """A key with a passphrase must not make a service ask the terminal for it."""
    return b""


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)


def _digest(contents: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for key, content in contents:
        digest.update(f"{key} {len(content)} ".encode() + content)
    return digest.hexdigest()
