"""What opens a broker's door: passwords, certificates and keys, read and tried before anything is stopped."""

from __future__ import annotations

import ssl

import msgspec

from gateway.aio.tls import TlsFault, TlsFiles, client_context, digest
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
    contents: list[tuple[str, bytes]] = []
    password = None
    if model.password_file is not None:
        path = site.directory / model.password_file
        try:
            password = path.read_bytes()
            contents.append(("password_file", password))
        except OSError as error:
            found = f"{path}, which cannot be read: {error.strerror}"
            problems.append(Problem((*spec.path, "password_file"), found, "a file that we may read"))
    tls = None
    named = {key: getattr(model, key) for key in ("ca", "cert", "key_file")}
    files = TlsFiles(**{key: None if name is None else site.directory / name for key, name in named.items()})
    try:
        contents += files.contents()
        if model.url.is_tls:
            tls = client_context(files)
    except TlsFault as fault:
        problems.append(Problem((*spec.path, fault.key), fault.found, fault.expected))
    if problems:
        return None, problems
    stripped = None if password is None else password.rstrip(b"\r\n")
    return Access(password=stripped, tls=tls, digest=digest(contents)), []
