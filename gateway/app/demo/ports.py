"""Where the demo listens: the addresses of `configs/demo`, or free ones in a copy of it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Final

import msgspec

import gateway
from gateway.core.errors import GatewayError

HOST: Final = "127.0.0.1"


class DemoPorts(msgspec.Struct, frozen=True, kw_only=True):
    """TCP ports on 127.0.0.1. The defaults are those written in `configs/demo`."""

    modbus: int = 15020
    mqtt: int = 18830
    http: int = 18080


class Place(msgspec.Struct, frozen=True):
    """The configuration the gateway runs from, the ports in it, and what to tell about that."""

    config: Path
    ports: DemoPorts
    remark: str = ""


def demo_config() -> Path:
    """`configs/demo` beside the sources, or where the package carries it."""
    package = Path(gateway.__file__).parent
    places = (package.parent / "configs" / "demo", package / "share" / "configs" / "demo")
    for place in places:
        if (place / "gateway.yaml").is_file():
            return place
    raise GatewayError(f"the demo's configuration is missing, expected at {places[0]} or {places[1]}")


def settle(config: Path, *, copy_to: Path) -> Place:
    """`config` itself where its ports are free; else a copy in `copy_to` with free ones, and a remark."""
    wanted = DemoPorts()
    busy = [port for port in msgspec.structs.astuple(wanted) if not _is_free(port)]
    if not busy:
        return Place(config, wanted)
    chosen = DemoPorts(**{name: _free_port() for name in wanted.__struct_fields__})
    shutil.copytree(config, copy_to)
    _rewrite(copy_to, wanted, chosen)
    numbers = ", ".join(map(str, busy))
    remark = f"port {numbers} is taken here: running from a copy with other ports, in {copy_to}"
    return Place(copy_to, chosen, remark)


def _rewrite(directory: Path, wanted: DemoPorts, chosen: DemoPorts) -> None:
    pairs = [
        (f"{HOST}:{before}", f"{HOST}:{after}")
        for before, after in zip(
            msgspec.structs.astuple(wanted), msgspec.structs.astuple(chosen), strict=True
        )
    ]
    missing = {before for before, _ in pairs}
    for path in sorted(directory.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        for before, after in pairs:
            if before in text:
                missing.discard(before)
                text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")
    if missing:
        raise GatewayError(f"{directory}: expected {', '.join(sorted(missing))} in it, found no such address")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
