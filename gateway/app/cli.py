"""The command `gateway`."""

from __future__ import annotations

import faulthandler
import logging
import sys
from pathlib import Path
from typing import Final

import click

from gateway.app.backup.places import state_directory
from gateway.app.importing.formats import FORMATS
from gateway.app.modbus_cli import COMMANDS as MODBUS_COMMANDS
from gateway.app.service_cli import service
from gateway.core.errors import ConfigError, GatewayError

EXIT_CONFIG: Final = 78  # EX_CONFIG of sysexits.h; the unit file tells systemd not to restart on it
_DIRECTORY: Final = click.argument("config", type=click.Path(path_type=Path), metavar="DIR")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edge-gateway", prog_name="gateway")
def cli() -> None:
    """Edge gateway: field devices to MQTT and back, losing nothing, never lying about a value."""


@cli.command(short_help="Run the gateway of the configuration in DIR.")
@_DIRECTORY
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where values, cursors and the audit file are kept. Default: $STATE_DIRECTORY, else ./state.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least level of log lines.",
)
def run(config: Path, state: Path | None, log_level: str) -> None:
    """Run the gateway of the configuration in DIR until it is told to stop."""
    from gateway.aio.clock import SystemClock
    from gateway.aio.loop import run as run_loop
    from gateway.app.backup.swap import finish_if_begun
    from gateway.app.kinds import kinds
    from gateway.app.logs import set_up_logs
    from gateway.app.runtime import Gateway
    from gateway.config.load import load

    set_up_logs(level=log_level.upper())
    faulthandler.enable(2)  # the watchdog ends us with SIGABRT: the log then shows where each thread was
    home = state or state_directory()
    if (intent := finish_if_begun(home)) is not None:
        logging.getLogger("gateway").warning("a restore is finished", extra={"backup": intent.backup})

    async def main() -> int:
        site = load(config, kinds())
        return await Gateway(config, state=home, clock=SystemClock()).run(site)

    raise SystemExit(run_loop(main()))


@cli.command(short_help="Print every fault of a configuration, with file and line.")
@_DIRECTORY
def check(config: Path) -> None:
    """Print every fault of the configuration in DIR, with file, line and column; exit 78 if there is one."""
    from gateway.app.compiled import compile_site
    from gateway.app.kinds import kinds
    from gateway.config.load import ConfigErrors
    from gateway.config.load import check as check_config

    report = check_config(config, kinds())
    errors = list(report.errors)
    if report.site is not None:
        try:
            compile_site(report.site)
        except ConfigErrors as found:
            errors += found.errors
    for line in report.warnings:
        click.echo(f"{line} (warning)")
    for line in errors:
        click.echo(line)
    if errors:
        click.echo(f"{len(errors)} {'fault' if len(errors) == 1 else 'faults'}", err=True)
        raise SystemExit(EXIT_CONFIG)
    site = report.site
    assert site is not None
    tags = sum(len(device.tags) for device in site.devices.values())
    click.echo(
        f"{config}: no faults: {len(site.links)} links, {len(site.devices)} devices, {tags} tags, "
        f"{len(site.publish)} publish rules, {len(site.commands)} command rules (version {site.version})"
    )


@cli.command(short_help="Write the JSON Schema of the configuration, for editors.")
@click.argument("file", type=click.Path(path_type=Path), default=Path("configs/gateway.schema.json"))
@click.option("--check", "is_check", is_flag=True, help="Write nothing; exit 1 if the file is stale.")
def schema(file: Path, is_check: bool) -> None:  # noqa: FBT001 - click hands flags over as they are
    """Write the JSON Schema of the configuration, for editors."""
    from gateway.app.kinds import kinds
    from gateway.config.schema import schema_text

    text = schema_text(kinds()).encode()
    try:
        if not is_check:
            file.write_bytes(text)
            click.echo(f"wrote {file}")
        elif not file.exists() or file.read_bytes() != text:
            click.echo(f"{file} is stale: run `gateway schema {file}`", err=True)
            raise SystemExit(1)
    except OSError as error:
        raise GatewayError(f"{file}: {error.strerror or error}") from error


@cli.command(short_help="Say what a configuration will cost: links, disk, buffers.")
@_DIRECTORY
@click.option("--answer-time", default="10ms", show_default=True, help="What one request takes on your wire.")
@click.option(
    "--share", default="10%", show_default=True, help="How many values change from scan to scan, usually."
)
@click.option("--card", default="32GB", show_default=True, help="Size of what the journal is on.")
@click.option("--endurance", metavar="TBW", help="What may be written to it in its life, such as 100TB.")
def plan(config: Path, answer_time: str, share: str, card: str, endurance: str | None) -> None:
    """Say what the configuration in DIR will cost: each link, the disk, and how long buffers last."""
    from gateway.app.compiled import compile_site
    from gateway.app.kinds import kinds
    from gateway.app.plan import link_costs, print_plan
    from gateway.app.wear_report import Card, print_wear
    from gateway.config.load import load

    compiled, answer_ns = compile_site(load(config, kinds())), _duration_ns(answer_time)
    life = None if endurance is None else _size(endurance.upper().removesuffix("W"))
    print_plan(compiled, answer_ns=answer_ns)
    print_wear(
        compiled,
        link_costs(compiled, answer_ns=answer_ns),
        card=Card(_size(card), life),
        share=_share(share),
    )


@cli.command(short_help="Attach the live table to a running gateway.")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the gateway answers.")
def watch(url: str) -> None:
    """Attach the live table to a running gateway."""
    from gateway.app.watch import watch as watch_gateway

    raise SystemExit(watch_gateway(url))


@cli.command(short_help="Print what goes over a link of a running gateway.")
@click.argument("link")
@click.option("--for", "duration", default="60s", show_default=True, help="How long; 10m at most.")
@click.option("--hex", "with_hex", is_flag=True, help="With the bytes of each frame: unit, then the PDU.")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the gateway answers.")
def frames(link: str, duration: str, with_hex: bool, url: str) -> None:  # noqa: FBT001 - as click hands it over
    """Print what goes over LINK of a running gateway, in words, until Ctrl-C."""
    from gateway.app.frames import show_frames

    raise SystemExit(show_frames(link, for_s=_duration_ns(duration) / 1e9, with_hex=with_hex, url=url))


@cli.command(short_help="Show what tags were: values, or aggregates.")
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@click.option("--from", "begin", default="-1h", show_default=True, help="Time: -2h, 2026-05-01, RFC 3339 …")
@click.option("--to", "end", default="now", show_default=True, help="Time, not included.")
@click.option("--every", metavar="DURATION", default="", help="Aggregates over spans of so long, such as 1m.")
@click.option("--limit", type=click.IntRange(min=1), help="Most rows. Default: 1000 in a table, else all.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "jsonl"]),
    default="table",
    show_default=True,
    help="For people, for a spreadsheet, for a program.",
)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the gateway answers.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Read the journal in this state directory instead, without a gateway.",
)
def history(
    tags: tuple[str, ...],
    begin: str,
    end: str,
    every: str,
    limit: int | None,
    form: str,
    url: str,
    state: Path | None,
) -> None:
    """Show what TAG... (DEVICE/TAG, `*` is any text) were: values as recorded, or aggregates with --every."""
    from gateway.app.history_client import history as show_history

    words = {"from": begin, "to": end, "every": every}
    raise SystemExit(show_history(tags, words, limit=limit, form=form, url=url, state=state))


@cli.command(short_help="A simulated plant, a broker and the gateway between.")
@click.option("--for", "duration", metavar="DURATION", help="End by itself, for example after 20s.")
@click.option(
    "--broker",
    type=click.Choice(["mosquitto", "iotcore"]),
    help="Which broker. Default: mosquitto where it is installed, else the embedded one.",
)
def demo(duration: str | None, broker: str | None) -> None:
    """A simulated plant, a broker and the gateway between them, with a live table."""
    from gateway.app.demo.broker import BrokerKind
    from gateway.app.demo.run import demo as run_demo

    kind = None if broker is None else BrokerKind(broker)
    raise SystemExit(run_demo(None if duration is None else _duration_ns(duration) / 1e9, broker=kind))


_MAPS_CONFIG: Final = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The configuration whose own maps count too. Default: this directory, else /etc/edge-gateway.",
)


@cli.command("maps", short_help="List the device maps that `use:` takes.")
@click.argument("name", required=False)
@_MAPS_CONFIG
def maps_(name: str | None, config: Path | None) -> None:
    """List the device maps that `use:` takes, or show the one called NAME."""
    from gateway.app.backup.command import configuration
    from gateway.app.maps.show import print_map, print_maps

    where = configuration(config)
    if name is None:
        print_maps(where)
    else:
        print_map(name, where)


@cli.command("test-maps", short_help="Run the cases inside device maps.")
@click.argument("names", metavar="[NAME|FILE.yaml]...", nargs=-1)
@_MAPS_CONFIG
def test_maps(names: tuple[str, ...], config: Path | None) -> None:
    """Run the cases inside device maps, of those named or of all; exit 1 if one does not hold."""
    from gateway.app.backup.command import configuration
    from gateway.app.maps.show import check_maps

    raise SystemExit(check_maps(names, configuration(config)))


@cli.command("import", short_help="Make a configuration of another program's.")
@click.argument("kind", metavar="FORMAT", type=click.Choice(list(FORMATS)))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write there: gateway.yaml, or maps/NAME.yaml. Default: print it.",
)
def import_(kind: str, file: Path, out: Path | None) -> None:
    """Make a configuration of FILE, which is another program's: csv, telegraf, thingsboard, homeassistant
    or wb-mqtt-serial. What could not be carried over is said, with its place; exit 1 if that is all."""
    from gateway.app.importing.command import import_file

    raise SystemExit(import_file(kind, file, out))


@cli.group(short_help="Look into the journal of a gateway.")
def journal() -> None:
    """Look into the journal of a gateway, stopped or running, without changing anything in it."""


@journal.command("dump", short_help="Print every record of a journal as a line of JSON.")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--device", help="Only records of this device.")
@click.option("--after", metavar="EPOCH/NUMBER", default="0/0", help="Only records behind this one.")
def journal_dump(directory: Path, device: str | None, after: str) -> None:
    """Print every record of the journal in DIR (a state directory) as a line of JSON; exit 1 if damaged."""
    from gateway.app.journal_report import dump

    raise SystemExit(dump(directory, device=device, after=_position(after)))


@journal.command("stat", short_help="Say what a journal holds and how far its rules are.")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--verify", "is_verified", is_flag=True, help="Read every record, and show epochs.")
def journal_stat(directory: Path, is_verified: bool) -> None:  # noqa: FBT001 - click hands flags over as they are
    """Say what the journal in DIR (a state directory) holds, and how far its rules are; exit 1 if damaged."""
    from gateway.app.journal_report import stat

    raise SystemExit(stat(directory, is_verified=is_verified))


cli.add_command(service)


def _position(text: str) -> tuple[int, int]:
    epoch, slash, number = text.partition("/")
    if not (epoch.isdecimal() and number.isdecimal() and slash):
        raise click.BadParameter(f"found {text!r}, expected EPOCH/NUMBER, for example 1700000000/41")
    return int(epoch), int(number)


_CONFIG_OPTION: Final = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The configuration. Default: this directory where it has a gateway.yaml, else /etc/edge-gateway.",
)
_STATE_OPTION: Final = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The state. Default: $STATE_DIRECTORY, else that of the installed service, else ./state.",
)


@cli.command(short_help="Copy configuration, journal and audit to one file.")
@click.argument("file", type=click.Path(path_type=Path))
@_CONFIG_OPTION
@_STATE_OPTION
@click.option("--with-secrets", is_flag=True, help="Copy password and key files too.")
@click.option("--list", "is_list", is_flag=True, help="Write nothing: check FILE and show what is in it.")
def backup(file: Path, config: Path | None, state: Path | None, with_secrets: bool, is_list: bool) -> None:  # noqa: FBT001
    """Copy configuration, journal, cursors and audit to FILE; the gateway may run meanwhile."""
    from gateway.app.backup.command import back_up, list_backup

    if is_list:
        list_backup(file)
    else:
        back_up(file, config=config, state=state, with_secrets=with_secrets)


@cli.command(short_help="Put what a backup holds in place.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@_CONFIG_OPTION
@_STATE_OPTION
@click.option("--force", is_flag=True, help="Replace what is there; it is kept aside.")
@click.option("--finish", "is_finish", is_flag=True, help="Only finish a restore that was stopped.")
def restore(
    file: Path | None,
    config: Path | None,
    state: Path | None,
    force: bool,  # noqa: FBT001
    is_finish: bool,  # noqa: FBT001
) -> None:
    """Put the configuration and state of a backup in place; the gateway must not run."""
    from gateway.app.backup.command import put_back

    put_back(file, config=config, state=state, force=force, is_finish=is_finish)


def _size(text: str) -> int:
    from pydantic_core import PydanticCustomError

    from gateway.config.values import size_bytes

    try:
        return size_bytes(text)
    except PydanticCustomError as error:
        raise click.BadParameter(error.message()) from None


def _share(text: str) -> float:
    number = text.removesuffix("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = -1.0
    if not (text.endswith("%") and 0 < share <= 1):
        raise click.BadParameter(f"found {text!r}, expected a share such as 10%")
    return share


def _duration_ns(text: str) -> int:
    from pydantic_core import PydanticCustomError

    from gateway.config.values import duration_ns

    try:
        return duration_ns(text)
    except PydanticCustomError as error:
        raise click.BadParameter(error.message()) from None


for _command in MODBUS_COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Entry point: what goes wrong is said in words, not as a traceback."""
    try:
        cli()
    except ConfigError as error:
        _complain(str(error))
        sys.exit(EXIT_CONFIG)
    except GatewayError as error:
        _complain(f"gateway: {error}")
        sys.exit(1)


def _complain(text: str) -> None:
    from gateway.app.journald import is_journal

    level = "<3>" if is_journal(2) else ""  # sd-daemon(3): an error, in red and found by `journalctl -p err`
    click.echo("\n".join(f"{level}{line}" for line in text.splitlines()), err=True)


if __name__ == "__main__":
    main()
