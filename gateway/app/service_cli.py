"""`gateway service install|uninstall|status` on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.core.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from gateway.app.service import Host

_DRY: str = "Change nothing, show what would be done."


@click.group()
def service() -> None:
    """Run the gateway of this environment under systemd. (The Debian package has done that already.)"""


@service.command(short_help="Make a service of this environment and run it.")
@click.argument("config", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--dry-run", "is_dry", is_flag=True, help=_DRY)
def install(config: Path, is_dry: bool) -> None:  # noqa: FBT001 - click hands flags over as they are
    """Make a service of this environment and the configuration in DIR, and start it; again to update it."""
    from gateway.app.compiled import compile_site
    from gateway.app.kinds import kinds
    from gateway.app.service import carry_out, install_steps, problems, this_program
    from gateway.config.load import load

    host = _host()
    config = config.absolute()
    program = this_program()
    if found := problems(program, config, host):
        raise GatewayError("cannot install:\n  " + "\n  ".join(found))
    try:
        compile_site(load(config, kinds()))
    except ConfigError as error:
        raise ConfigError(f"{error}\nnothing was installed: mend the configuration first") from error
    _require_root(is_dry=is_dry)
    carry_out(install_steps(program, config), host, is_dry=is_dry, say=click.echo)
    click.echo(_after(is_dry=is_dry, text="it runs: gateway service status, journalctl -u edge-gateway -f"))


@service.command(short_help="Take the service away; what it kept stays.")
@click.option("--purge", "is_purge", is_flag=True, help="Values, cursors, audit file and user go too.")
@click.option("--dry-run", "is_dry", is_flag=True, help=_DRY)
def uninstall(is_purge: bool, is_dry: bool) -> None:  # noqa: FBT001 - click hands flags over as they are
    """Stop the service and take its unit away; what it kept stays, unless --purge."""
    from gateway.app.service import PACKAGED_UNIT, STATE, UNIT_FILE, carry_out, uninstall_steps

    host = _host()
    if not host.at(UNIT_FILE).exists():
        how = "apt-get remove edge-gateway" if host.at(PACKAGED_UNIT).exists() else "nothing to do"
        raise GatewayError(f"{UNIT_FILE} is not there, so `service install` was not used here: {how}")
    _require_root(is_dry=is_dry)
    carry_out(uninstall_steps(is_purge=is_purge), host, is_dry=is_dry, say=click.echo)
    kept = "all of it is gone but the configuration" if is_purge else f"what it kept stays in {STATE}"
    click.echo(_after(is_dry=is_dry, text=kept))


@service.command(short_help="Say whether the service runs, and what is wrong.")
def status() -> None:
    """Say whether the service runs, what is wrong with it and what to do; exit 1 if something is."""
    from gateway.app.service import look

    report = look(_host())
    for line in report.lines:
        click.echo(line)
    for finding in report.findings:
        click.echo(f"  wrong     {finding.found}")
        click.echo(f"  do        {finding.do}")
    raise SystemExit(1 if report.findings else 0)


def _host() -> Host:
    from gateway.app.service import Host

    return Host()


def _require_root(*, is_dry: bool) -> None:
    if not is_dry and os.geteuid() != 0:
        raise GatewayError(
            "this changes the system: type sudo in front, or --dry-run behind to see what it does"
        )


def _after(*, is_dry: bool, text: str) -> str:
    return "nothing was changed" if is_dry else text
