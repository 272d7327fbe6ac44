"""`gateway service`: a virtual environment becomes a service of systemd; and what is wrong with the service.

The Debian package needs none of this: it brings the same unit. Every step is said before it is taken, and
with `--dry-run` only said.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

import gateway
from gateway.config.credentials import FOLDER
from gateway.core.errors import GatewayError

NAME: Final = "edge-gateway"
UNIT: Final = f"{NAME}.service"
UNIT_FILE: Final = Path("/etc/systemd/system") / UNIT
PACKAGED_UNIT: Final = Path("/usr/lib/systemd/system") / UNIT
USER_FILE: Final = Path("/etc/sysusers.d") / f"{NAME}.conf"
STATE: Final = Path("/var/lib") / NAME
COMMAND_S: Final = 120.0  # a start may wait for the network; TimeoutStartSec of the unit is longer on purpose
EXIT_CONFIG: Final = 78
_PACKAGED_COMMAND: Final = "/opt/edge-gateway/bin/gateway run /etc/edge-gateway"
_PACKAGED_CREDENTIALS: Final = f"gateway:/etc/edge-gateway/{FOLDER}"
_OUT_OF_REACH: Final = (Path("/root"), Path("/tmp"), Path("/var/tmp"), Path("/run/user"))  # noqa: S108 - refused
_SHOWN: Final = (
    "LoadState ActiveState SubState Result ExecMainStatus NRestarts UnitFileState StatusText MainPID "
    "FragmentPath ActiveEnterTimestamp"
)


class Answer(msgspec.Struct, frozen=True):
    """What a command said."""

    code: int
    text: str


def run_command(*command: str) -> Answer:
    """Both outputs together. A program that is missing, or too slow, is an answer too."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)  # noqa: S603 - our own words
    except FileNotFoundError:
        return Answer(127, f"{command[0]} is not there")
    except subprocess.TimeoutExpired:
        return Answer(124, f"{' '.join(command)} takes longer than {COMMAND_S:g} s")
    return Answer(done.returncode, (done.stdout + done.stderr).strip())


class Host(msgspec.Struct, frozen=True):
    """The machine: where its files are, what runs commands."""

    root: Path = Path("/")
    run: Callable[..., Answer] = run_command

    def at(self, path: Path) -> Path:
        """Where a path of the machine is."""
        return self.root / path.relative_to("/")


class Step(msgspec.Struct, frozen=True):
    """One thing that is done, and why."""

    why: str
    command: tuple[str, ...] = ()
    write: tuple[Path, str] | None = None
    make: Path | None = None  # a folder that only root looks into
    remove: tuple[Path, ...] = ()

    def words(self) -> list[str]:
        """What a person would have to do instead."""
        lines = [" ".join(self.command)] if self.command else []
        if self.write is not None:
            lines.append(f"write {self.write[0]}")
        if self.make is not None:
            lines.append(f"mkdir -m 700 {self.make}")
        return lines + [f"rm -rf {path}" for path in self.remove]

    def take(self, host: Host) -> None:
        """Raises `GatewayError`, which names the step."""
        try:
            if self.write is not None:
                path = host.at(self.write[0])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.write[1])
            if self.make is not None:
                host.at(self.make).mkdir(mode=0o700, exist_ok=True)
            for path in self.remove:
                _remove(host.at(path))
        except OSError as error:
            raise GatewayError(f"{self.why}: {error.filename}: {error.strerror}") from error
        if self.command:
            answer = host.run(*self.command)
            if answer.code:
                raise GatewayError(
                    f"{self.why}: `{' '.join(self.command)}` says: {answer.text or answer.code}"
                )


def _remove(path: Path) -> None:
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def shipped(name: str) -> str:
    """A file of `systemd/`, beside the sources or where the package carries it. Raises `GatewayError`."""
    package = Path(gateway.__file__).parent
    places = (package.parent / "systemd" / name, package / "share" / "systemd" / name)
    for place in places:
        if place.is_file():
            return place.read_text()
    raise GatewayError(f"{name} is missing, expected at {places[0]} or {places[1]}")


def unit_text(program: Path, config: Path) -> str:
    """The unit of this environment and configuration: what the package has, with other paths."""
    text = shipped(UNIT)
    text = text.replace(_PACKAGED_COMMAND, f"{_quoted(program)} run {_quoted(config)}")
    text = text.replace(_PACKAGED_CREDENTIALS, f"gateway:{config / FOLDER}")
    if any(_is_below(path, Path("/home")) for path in (program, config)):
        text = text.replace("ProtectHome=yes", "# This environment is under /home.\nProtectHome=read-only")
    return text


def install_steps(program: Path, config: Path) -> list[Step]:
    """In order."""
    return [
        Step("the service gets a user of its own, in the group of serial ports",
             write=(USER_FILE, shipped(f"{NAME}.sysusers"))),
        Step("that user is made", command=("systemd-sysusers", str(USER_FILE))),
        Step("secrets: a file NAME in this folder is `credential:NAME` in the configuration",
             make=config / FOLDER),
        Step("the unit says what runs, and what it may touch", write=(UNIT_FILE, unit_text(program, config))),
        Step("systemd reads the unit", command=("systemctl", "daemon-reload")),
        Step("it starts at every boot", command=("systemctl", "enable", UNIT)),
        Step("and now; this returns once everything is wired", command=("systemctl", "restart", UNIT)),
    ]  # fmt: skip


def uninstall_steps(*, is_purge: bool) -> list[Step]:
    """In order. Without purge the values, the user and the configuration stay."""
    steps = [
        Step(
            "it stops, and does not start at the next boot", command=("systemctl", "disable", "--now", UNIT)
        ),
        Step("the unit goes", remove=(UNIT_FILE,)),
        Step("systemd forgets it", command=("systemctl", "daemon-reload")),
    ]
    if is_purge:
        steps += [
            Step("values that were not delivered, cursors and the audit file go", remove=(STATE,)),
            Step("the user goes", command=("userdel", NAME), remove=(USER_FILE,)),
        ]
    return steps


def problems(program: Path, config: Path, host: Host) -> list[str]:
    """Why this environment cannot be a service; nothing is changed."""
    found: list[str] = []
    if host.at(PACKAGED_UNIT).exists():
        found.append(
            f"the Debian package is installed and brings {PACKAGED_UNIT}: systemctl enable --now {NAME}"
        )
    if not host.at(Path("/run/systemd/system")).is_dir():
        found.append("systemd does not run here: start `gateway run` with what does")
    if not os.access(host.at(program), os.X_OK):
        found.append(f"{program} is not there or cannot be run: install the gateway into this environment")
    for path in (program, config):
        found += _reach_problems(path, host)
    return list(dict.fromkeys(found))


def _reach_problems(path: Path, host: Host) -> list[str]:
    for place in _OUT_OF_REACH:
        if _is_below(path, place):
            return [f"{path} is under {place}, which no service sees: move it, to /opt or /srv for one"]
    for parent in reversed(path.parents):
        here = host.at(parent)
        if here.exists() and not here.stat().st_mode & stat.S_IXOTH:
            return [f"the user {NAME} cannot pass through {parent}: chmod o+x {parent}"]
    return []


def _is_below(path: Path, place: Path) -> bool:
    return path == place or place in path.parents


def _quoted(path: Path) -> str:
    """As systemd.service(5) reads a word of a command."""
    text = str(path).replace("%", "%%").replace("$", "$$")
    return (
        text
        if not any(c in text for c in " \"'\\;")
        else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )


# What is wrong


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be, and what to do."""

    found: str
    do: str


class Report(msgspec.Struct, frozen=True):
    """What `status` shows; nothing wrong where there is no finding."""

    lines: tuple[str, ...]
    findings: tuple[Finding, ...]


def look(host: Host) -> Report:
    """Ask systemd, change nothing."""
    answer = host.run("systemctl", "show", UNIT, "--no-pager", *(f"-p{name}" for name in _SHOWN.split()))
    if answer.code:
        return Report((), (Finding(answer.text, "start it with what runs services here"),))
    said = dict(line.partition("=")[::2] for line in answer.text.splitlines() if "=" in line)
    if said.get("LoadState") != "loaded":
        return Report(
            (f"{NAME} is not installed",), (Finding("no unit", "sudo gateway service install DIR"),)
        )
    return Report(tuple(_lines(said)), tuple(_findings(said)))


def _lines(said: dict[str, str]) -> list[str]:
    state = {"active": "runs", "failed": "has failed", "inactive": "is stopped"}.get(
        said.get("ActiveState", ""), f"is {said.get('ActiveState')} ({said.get('SubState')})"
    )
    text = said.get("StatusText", "")
    lines = [f"{NAME} {state}{f': {text}' if text else ''}"]
    lines.append(f"  unit      {said.get('FragmentPath')}, {said.get('UnitFileState') or 'unknown'}")
    if said.get("ActiveState") == "active":
        lines.append(f"  since     {said.get('ActiveEnterTimestamp')}, pid {said.get('MainPID')}")
    lines.append(f"  restarts  {said.get('NRestarts')} by systemd since it was started by hand or at boot")
    return lines


def _findings(said: dict[str, str]) -> list[Finding]:
    errors = f"journalctl -u {NAME} -p err -n 20 --no-pager"
    active, result, code = said.get("ActiveState"), said.get("Result"), said.get("ExecMainStatus")
    found: list[Finding] = []
    if code == str(EXIT_CONFIG) and active != "active":
        found.append(
            Finding("the configuration is wrong", f"{errors}; mend it, then: systemctl restart {NAME}")
        )
    elif active == "failed":
        found.append(
            Finding(f"it failed: {result}, exit {code}", f"{errors}; then: systemctl restart {NAME}")
        )
    elif active == "inactive":
        found.append(Finding("it is stopped", f"systemctl start {NAME}"))
    elif active == "activating" and said.get("SubState") == "auto-restart":
        found.append(Finding(f"it ends again and again: {result}, exit {code}", errors))
    elif active == "active" and "; " in said.get("StatusText", ""):
        found.append(Finding(said["StatusText"].split("; ", 1)[1], "docs/operation.md, `When things break`"))
    elif active == "active" and "does not answer" in said.get("StatusText", ""):
        found.append(Finding(said["StatusText"], "look at the disk: dmesg, free space, smartctl"))
    if said.get("UnitFileState") not in {"enabled", "enabled-runtime", "static"}:
        found.append(Finding("it does not start at boot", f"systemctl enable {NAME}"))
    return found


def carry_out(steps: Sequence[Step], host: Host, *, is_dry: bool, say: Callable[[str], None]) -> None:
    """Say and take each step. Raises `GatewayError` at the first that fails."""
    for number, step in enumerate(steps, 1):
        say(f"{number}. {step.why}")
        for line in step.words():
            say(f"     {line}")
        if not is_dry:
            step.take(host)


def this_program() -> Path:
    """The command of the environment that runs now."""
    return Path(sys.prefix) / "bin" / "gateway"
