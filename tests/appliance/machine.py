"""A whole machine: a Debian root booted by systemd-nspawn, ended with everything in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

SUITES: Final = {(3, 11): "bookworm", (3, 13): "trixie"}  # Debian's Python decides which release it is for
PACKAGES: Final = "systemd-sysv,dbus,python3,ca-certificates,mosquitto,mosquitto-clients,e2fsprogs,procps"
BOOT_S: Final = 60.0
COMMAND_S: Final = 90.0
LOOK_S: Final = 0.1
PROGRAMS: Final = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "dpkg-deb": "dpkg",
    "mkfs.ext4": "e2fsprogs",
    "fsfreeze": "util-linux",
}


def missing() -> list[str]:
    """Debian packages whose programs are not here."""
    return sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})


def until(true: Callable[[], T], what: str, *, within_s: float) -> T:
    """The first truthy result; raises `AssertionError` with `what`."""
    give_up = time.monotonic() + within_s
    while True:
        if found := true():
            return found
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(LOOK_S)


def cached_root() -> tuple[Path, float]:
    """A fresh Debian root, made once, and the seconds that took."""
    suite = SUITES.get(sys.version_info[:2])
    if suite is None:
        raise AssertionError(f"no Debian release has Python {sys.version_info[0]}.{sys.version_info[1]}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-gateway"
    root = cache / f"{suite}-appliance"
    if root.is_dir():
        return root, 0.0
    began = time.monotonic()
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{root.name}.", dir=cache))
    partial.chmod(0o755)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        shutil.rmtree(partial)
        raise AssertionError(f"debootstrap {suite}: {(done.stdout + done.stderr)[-600:]}")
    try:
        partial.rename(root)
    except OSError:  # somebody else was faster
        shutil.rmtree(partial)
    return root, time.monotonic() - began


class Machine:
    """Boots a copy of a root; a network of its own with loopback only."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root: Final = work / "root"
        self._work: Final = work
        subprocess.run(["cp", "-a", "--reflink=auto", str(root), str(self.root)], check=True)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._disk: Path | None = None
        self._is_frozen = False
        self.disk_reason = ""  # why there is no disk that can be frozen

    def make_disk(self, size_mb: int = 64) -> None:
        """A disk of its own, to be frozen; `disk_reason` says why where this kernel gives none."""
        image, mount = self._work / "disk.img", self._work / "disk"
        mount.mkdir()
        for command in (
            ["truncate", "-s", f"{size_mb}M", str(image)],
            ["mkfs.ext4", "-q", str(image)],
            ["mount", "-o", "loop", str(image), str(mount)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                self.disk_reason = done.stderr.strip()
                return
        self._disk = mount

    @property
    def has_disk(self) -> bool:
        """Whether there is one."""
        return self._disk is not None

    def freeze(self) -> None:
        """From now on nothing is written there and no writer returns."""
        subprocess.run(["fsfreeze", "--freeze", str(self._disk)], check=True, timeout=20)
        self._is_frozen = True

    def thaw(self) -> None:
        """It goes on."""
        if self._is_frozen:
            subprocess.run(["fsfreeze", "--unfreeze", str(self._disk)], check=True, timeout=20)
            self._is_frozen = False

    def boot(self, *, disk_at: str) -> None:
        """Returns once systemd has started everything."""
        binds = [f"--bind={self._disk}:{disk_at}"] if self._disk is not None else []
        log = (self._work / "boot.log").open("wb")
        self._nspawn = subprocess.Popen(
            ["systemd-nspawn", "-q", "-D", str(self.root), "--register=no", "--keep-unit",
             "--private-network", "--console=pipe", "--kill-signal=SIGRTMIN+3", *binds, "-b"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")

        def is_up() -> bool:
            assert self._nspawn is not None
            if self._nspawn.poll() is not None:
                raise AssertionError(f"it does not boot: {(self._work / 'boot.log').read_text()[-600:]}")
            found = children.read_text().split()
            if not found:
                return False
            self._leader = int(found[0])
            return self.run("systemctl", "is-system-running", check=False).strip() in {"running", "degraded"}

        until(is_up, "the machine is up", within_s=BOOT_S)

    def run(self, *command: str, check: bool = True, within_s: float = COMMAND_S) -> str:
        """What a command inside says; raises `AssertionError` where it fails and `check` is set."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--"]
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
                 "DEBIAN_FRONTEND=noninteractive"]  # fmt: skip
        done = subprocess.run(
            [*enter, *clean, *command], capture_output=True, text=True, timeout=within_s, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def show(self, name: str, unit: str = "edge-gateway") -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", unit, f"-p{name}", "--value").strip()

    def log(self, *more: str) -> str:
        """Of the gateway, as an operator reads it."""
        return self.run("journalctl", "-u", "edge-gateway", "-o", "cat", "--no-pager", *more, check=False)

    def end(self) -> None:
        """Off, whatever state it is in."""
        if self._disk is not None:
            self.thaw()
        if self._nspawn is not None and self._nspawn.poll() is None:
            self._nspawn.terminate()
            try:
                self._nspawn.wait(15)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait(15)
        if self._disk is not None:
            subprocess.run(["umount", str(self._disk)], check=False)
