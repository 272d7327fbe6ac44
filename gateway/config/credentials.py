"""Secrets that systemd hands to a service: `credential:NAME` wherever a configuration names a file.

Under systemd NAME is looked for in `$CREDENTIALS_DIRECTORY`: as it is (`LoadCredential=NAME:…`), then as
`gateway_NAME`, which is what `LoadCredential=gateway:DIR/credentials` of our unit makes of a file NAME in
that folder. Without systemd it is that file itself, so that `gateway check` sees what the service will see.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SCHEME: Final = "credential:"
FOLDER: Final = "credentials"  # beside gateway.yaml
PREFIX: Final = "gateway_"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}", re.ASCII)


def credential_name(value: str) -> str | None:
    """`credential:NAME` → NAME, "" where that is no name; None where it is the path of a file."""
    if not value.startswith(SCHEME):
        return None
    name = value.removeprefix(SCHEME)
    return name if _NAME.fullmatch(name) else ""


def credential_path(name: str, directory: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The file of a credential, which may be missing; `directory` is where gateway.yaml is."""
    given = environ.get("CREDENTIALS_DIRECTORY")
    if not given:
        return directory / FOLDER / name
    exact = Path(given) / name
    return exact if exact.exists() else Path(given) / f"{PREFIX}{name}"


def where_it_comes_from(name: str, directory: Path, environ: Mapping[str, str] = os.environ) -> str:
    """What to do about a credential that is missing."""
    file = directory / FOLDER / name
    if environ.get("CREDENTIALS_DIRECTORY"):
        return f"a credential that systemd loaded: put it into {file} and restart the service"
    return f"the secret in {file}"
