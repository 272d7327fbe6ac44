"""The embedded broker as a process of its own: `python -m gateway.app.demo.embedded_broker CONFIG.toml`."""

from __future__ import annotations

import logging
import signal
import sys


def main(config_path: str) -> None:
    """Run rumqttd, as packaged by iotcore, with the configuration at `config_path`. Never returns."""
    from iotcore import IotCoreBroker

    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    # Its spans around every packet come out as records of level ERROR.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the native loop never returns to Python to handle one
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    IotCoreBroker(config_path=config_path).run_forever()


if __name__ == "__main__":
    main(sys.argv[1])
