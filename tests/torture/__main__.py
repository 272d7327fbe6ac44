"""`script/torture`: campaigns too long for `script/test`."""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gateway.config.values import duration_ns
from tests.peers import mosquitto
from tests.system.waiting import ROOT, Background
from tests.torture.kills import BROKER, Campaign
from tests.torture.soak import soak

LONG_FORM_KILLS = 100  # from here on each kind of moment must have been struck


def kills(count: int, *, seed: int, for_s: float | None, keep: bool) -> int:
    """The kill campaign; its last line is the result. 1: something was lost or not true."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-torture-"))
    background = Background()
    is_good = False
    try:
        with mosquitto(folder, BROKER) as broker:
            until_s = None if for_s is None else time.monotonic() + for_s
            campaign = Campaign(folder, broker=broker, background=background, seed=seed)
            report = campaign.run(kills=count, until_s=until_s, say=True)
        missed = [point.value for point in report.empty_points] if report.kills >= LONG_FORM_KILLS else []
        is_good = not (report.lost or report.faults or missed)
        for fault in report.faults:
            print(f"torture: {fault}", file=sys.stderr)
        for point in missed:
            print(f"torture: no kill struck {point}: run it longer", file=sys.stderr)
        print(report.line())
    finally:
        background.close()
        if keep or not is_good:
            print(f"torture: state and logs are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if is_good else 1


def soaks(months: float, *, seed: int) -> int:
    """Months in virtual time; 1: something grew or was lost."""
    soaked = soak(months, seed=seed, say=lambda line: print(f"torture: {line}", file=sys.stderr, flush=True))
    for fault in soaked.faults:
        print(f"torture: {fault}", file=sys.stderr)
    print(soaked.line())
    return 1 if soaked.faults else 0


def fuzz(examples: int, *, only: str) -> int:
    """Every property of the tests with so many examples; pytest's code."""
    command = [sys.executable, "-m", "pytest", "-q", "--fuzz", str(examples), "--timeout", "0", "-k", only]
    return subprocess.run([*command, "tests"], cwd=ROOT, check=False).returncode


def main() -> int:
    """One campaign after the other, as asked."""
    parser = argparse.ArgumentParser(prog="script/torture", description=__doc__)
    parser.add_argument("--kills", type=int, metavar="N", help="kill the gateway under load so many times")
    parser.add_argument("--soak", type=float, metavar="MONTHS", help="run so long in virtual time")
    parser.add_argument("--fuzz", type=int, metavar="N", help="every property with so many examples")
    parser.add_argument("--only", default="", metavar="WORDS", help="of the properties; as pytest's -k")
    parser.add_argument("--seed", type=int, help="of what is random; default: a new one, which is printed")
    parser.add_argument("--for", dest="duration", metavar="DURATION", help="end the kills after 10m, 8h …")
    parser.add_argument("--keep", action="store_true", help="keep state and logs also where all is well")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    for_s = None if options.duration is None else duration_ns(options.duration) / 1e9
    if {options.kills, for_s, options.soak, options.fuzz} == {None}:
        parser.error("nothing to do: --kills N, --soak MONTHS, --fuzz N")
    code = 0
    if options.fuzz is not None:
        code |= fuzz(options.fuzz, only=options.only)
    if options.soak is not None:
        code |= soaks(options.soak, seed=seed)
    if options.kills is not None or for_s is not None:
        code |= kills(options.kills or 1 << 30, seed=seed, for_s=for_s, keep=options.keep)
    return code


if __name__ == "__main__":
    sys.exit(main())
