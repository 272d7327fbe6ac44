"""The commands for people who commission Modbus: `gateway simulate modbus`, `scan modbus`, `probe`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

T = TypeVar("T")

_TRANSPORTS: Final = ("tcp", "tls", "udp", "rtu", "ascii", "rtu_over_tcp", "ascii_over_tcp")


class Read(click.ParamType):  # type: ignore[type-arg]  # generic in its stubs only
    """An option read as the same words in a configuration are: `10.0.0.5:502`, `19200-8E1`, `200ms`."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises `click.BadParameter` with what is expected."""
        from pydantic_core import PydanticCustomError

        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except PydanticCustomError as error:
            self.fail(error.message(), param, ctx)


def _read_duration(text: str) -> int:
    from gateway.config.values import duration_ns

    return duration_ns(text)


def _read_line(text: str) -> Any:
    from gateway.config.lines import serial_line

    return serial_line(text)


def _read_listen(text: str) -> Any:
    from gateway.config.values import host_port

    return host_port(text, 5020)


DURATION: Final = Read("DURATION", _read_duration)
LINE: Final = Read("LINE", _read_line)
LISTEN: Final = Read("HOST:PORT", _read_listen)
_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.group()
def simulate() -> None:
    """Devices that are not there, for trying out and for tests."""


def _list_faults(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:  # noqa: FBT001 - as click calls it
    if is_asked:
        from gateway.app.simulate.command import faults_help

        click.echo(faults_help())
        context.exit()


@simulate.command("modbus", short_help="Serve the devices of a map, with values that move.")
@click.option(
    "--map",
    "map_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A device map (its file or its name), a file of templates, or a configuration.",
)
@click.option("--config", type=click.Path(path_type=Path), metavar="DIR", help="As --map, of a gateway.")
@click.option("--link", metavar="NAME", help="Only the devices of this link.")
@click.option(
    "--listen", type=LISTEN, help="Where the first link listens; others follow. Default: 127.0.0.1:5020."
)
@click.option("--transport", type=click.Choice(_TRANSPORTS), help="Default: as the link says.")
@click.option("--serial", metavar="PORT", help="A serial port, such as /dev/ttyUSB0.")
@click.option("--line", type=LINE, help="How the port is set. Default: as the link says, or 19200-8E1.")
@click.option("--pty", "is_pty", is_flag=True, help="A pseudo-terminal; its name is printed.")
@click.option("--cert", type=_FILE, metavar="FILE", help="Our certificate (PEM), with --transport tls.")
@click.option("--key", type=_FILE, metavar="FILE", help="Its private key.")
@click.option("--ca", type=_FILE, metavar="FILE", help="What clients' certificates must come from.")
@click.option(
    "--fault", "faults", metavar="RULE", multiple=True, help="For example unit=3,kind=drop,probability=0.1."
)
@click.option(
    "--faults",
    "is_listing",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_faults,
    help="List the kinds of faults.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Other values, other dice.")
@click.option(
    "--fill", "fills_holes", is_flag=True, help="Addresses between values read as 0 instead of being refused."
)
@click.option("--for", "for_ns", type=DURATION, help="End by itself, for example after 20s.")
def simulate_modbus(map_file: Path | None, config: Path | None, **options: Any) -> None:
    """Serve every device of a map, with values that move; writes take effect.

    \b
    Prints `listening on …` for each link once clients can come.
    While it runs it takes lines:
      fault unit=3,kind=drop,probability=0.1    inject a fault
      clear 1                                   take it away
      set pump-07/speed 12.5                    hold a value
      release pump-07/speed                     let it move again
    """
    from gateway.app.simulate.command import run_modbus

    source = map_file or config
    if source is None or (map_file and config):
        raise click.UsageError("--map FILE or --config DIR: one of them says what is simulated")
    raise SystemExit(run_modbus(source, **options))


F = TypeVar("F", bound=Callable[..., Any])


def _on_wire(command: F) -> F:
    """The options that say where a device is, where no configuration does."""
    for option in reversed(
        (
            click.option("--host", metavar="HOST[:PORT]", help="A device that no configuration has."),
            click.option("--port", metavar="PORT", help="A serial port, such as /dev/ttyUSB0."),
            click.option("--line", metavar="LINE", help="How it is set, such as 19200-8E1."),
            click.option("--transport", type=click.Choice(_TRANSPORTS), help="Default: tcp, rtu on a port."),
            click.option(
                "--ca", type=_FILE, metavar="FILE", help="With tls: what its certificate comes from."
            ),
            click.option("--cert", type=_FILE, metavar="FILE", help="With tls: our certificate."),
            click.option("--key", type=_FILE, metavar="FILE", help="With tls: its private key."),
        )
    ):
        command = option(command)
    return command


_WIRE_OPTIONS: Final = ("host", "port", "line", "transport", "ca", "cert", "key")
_WIRE_KEYS: Final = {"line": "serial", "key": "key_file"}


def _wire(arguments: tuple[str, ...], options: dict[str, Any], rest: str) -> tuple[Any, tuple[str, ...]]:
    """The wire, and the arguments behind those that name it. Takes its options out of `options`."""
    from gateway.app.modbus_links import wire_of_config, wire_of_options

    given = {_WIRE_KEYS.get(key, key): options.pop(key) for key in _WIRE_OPTIONS}
    if any(value is not None for value in given.values()):
        return wire_of_options(given), arguments
    if len(arguments) < 2:
        raise click.UsageError(
            f"expected DIR LINK{rest} (a link of the configuration in DIR), or --host, or --port"
        )
    return wire_of_config(arguments[0], arguments[1]), arguments[2:]


@click.command()
@click.argument("arguments", metavar="[DIR LINK] UNIT [ADDRESS]", nargs=-1)
@_on_wire
@click.option("--type", "kind", metavar="TYPE", help="As in a configuration: int16, float32, string …")
@click.option("--order", default="ABCD", show_default=True, help="Of values of several registers: CDAB …")
@click.option(
    "--count", type=click.IntRange(1, 2000), help="How many values; without --type registers or bits."
)
@click.option("--length", type=click.IntRange(1, 246), help="Characters of a string, or bits.")
@click.option("--write", metavar="VALUE", help="Write it, then read it back.")
@click.option(
    "--multiple", "is_multiple", is_flag=True, help="Write with function 15 or 16 also a single one."
)
@click.option("--pdu", metavar="HEX", help='Any request: function code and data, such as "2b0e0100".')
@click.option("--timeout", "timeout_ns", type=DURATION, help="Longest wait. Default: the link's, or 1s.")
@click.option("--yes", "is_sure", is_flag=True, help="Write without asking.")
def probe(arguments: tuple[str, ...], timeout_ns: int | None, is_sure: bool, **options: Any) -> None:  # noqa: FBT001 - click hands flags over as they are
    """Read or write one address by hand, over a connection of its own.

    \b
      gateway probe site plc1 1 hr:100 --type float32 --order CDAB
      gateway probe --host 10.0.0.12 1 40101 --count 2
      gateway probe --port /dev/ttyUSB0 --line 9600-8N1 3 --pdu 2b0e0100
    """
    from gateway.app.probe.command import probe as run_probe
    from gateway.app.probe.command import question_of

    wire, rest = _wire(arguments, options, " UNIT [ADDRESS]")
    if not 1 <= len(rest) <= 2:
        raise click.UsageError(f"found {len(rest)} arguments behind the link, expected UNIT [ADDRESS]")
    question = question_of(rest[0], rest[1] if len(rest) == 2 else None, **options)
    raise SystemExit(run_probe(wire, question, timeout_ns=timeout_ns, is_sure=is_sure))


@click.group()
def scan() -> None:
    """Look at a wire: what is there, without writing anything."""


@scan.command("modbus", short_help="Find units that answer and what of them can be read.")
@click.argument("arguments", metavar="[DIR LINK]", nargs=-1)
@_on_wire
@click.option("--units", metavar="RANGES", help="Which units to ask, such as 1-32,100. Default: 1-247.")
@click.option(
    "--range", "ranges", metavar="RANGE", multiple=True, help="Addresses, such as hr:0-65535 or 40001-40500."
)
@click.option(
    "--step", type=click.IntRange(1, 125), default=8, show_default=True, help="1 finds also lone registers."
)
@click.option("--timeout", "timeout_ns", type=DURATION, help="Longest wait for an answer. Default: 300ms.")
@click.option(
    "--pause", "pause_ns", type=DURATION, help="Between two requests. Default: 20ms on a serial port."
)
@click.option(
    "--requests", type=click.IntRange(1, 10**6), default=3000, show_default=True, help="Most, for each unit."
)
@click.option(
    "--for", "for_ns", type=DURATION, default="60s", show_default=True, help="Longest time for each unit."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where the draft goes instead of here."
)
def scan_modbus(arguments: tuple[str, ...], **options: Any) -> None:
    """Find units that answer and what of them can be read; print a draft configuration.

    Never writes to a device: functions 1 to 4, 17 and 43/14 only. Progress goes to standard error.
    """
    from gateway.app.scan.command import scan as run_scan

    wire, rest = _wire(arguments, options, "")
    if rest:
        raise click.UsageError(f"found {rest[0]!r} behind the link, expected nothing")
    raise SystemExit(run_scan(wire, **options))


COMMANDS: Final[tuple[click.Command, ...]] = (simulate, scan, probe)
