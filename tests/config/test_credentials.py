"""`credential:NAME`: where a secret is under systemd, and where it is without."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.credentials import credential_name, credential_path
from gateway.config.load import check
from gateway.uplink.mqtt.config import MqttUplink
from tests.config.kinds import kinds

VARIABLE = "CREDENTIALS_DIRECTORY"  # systemd.exec(5)

CONFIG = """
version: 1
gateway: {name: gw1}
include: [uplinks/mqtt.yaml]
"""
UPLINK = 'uplinks: {m: {kind: mqtt, url: "mqtt://b", username: u, password_file: credential:mqtt-password}}\n'


def site(directory: Path) -> Path:
    (directory / "uplinks").mkdir(parents=True)
    (directory / "gateway.yaml").write_text(CONFIG)
    (directory / "uplinks" / "mqtt.yaml").write_text(UPLINK)
    return directory


def password_of(directory: Path) -> str:
    report = check(directory, kinds())
    assert report.site is not None, report.errors
    assert not report.warnings
    model = report.site.uplinks["m"].model
    assert isinstance(model, MqttUplink)
    assert model.password_file is not None
    return Path(model.password_file).read_text()


@pytest.mark.parametrize("name", ["mqtt-password", "gateway_mqtt-password"])
def test_under_systemd_it_is_what_systemd_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tmp_path / "run"
    loaded.mkdir()
    (loaded / name).write_text("from systemd")
    (loaded / name).chmod(0o400)
    monkeypatch.setenv(VARIABLE, str(loaded))
    assert password_of(site(tmp_path / "etc")) == "from systemd"


def test_without_systemd_it_is_the_file_that_the_unit_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    directory = site(tmp_path / "etc")
    (directory / "credentials").mkdir()
    secret = directory / "credentials" / "mqtt-password"
    secret.write_text("from the folder")
    secret.chmod(0o600)
    assert password_of(directory) == "from the folder"


def test_a_missing_one_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    directory = site(tmp_path / "etc")
    (line,) = check(directory, kinds()).errors
    assert "found 'credential:mqtt-password', which cannot be read" in line
    assert line.endswith(
        "expected a credential that systemd loaded: "
        f"put it into {directory}/credentials/mqtt-password and restart the service"
    )


def test_one_that_was_loaded_by_its_own_name_wins(tmp_path: Path) -> None:
    environ = {VARIABLE: str(tmp_path)}
    (tmp_path / "gateway_pw").touch()
    assert credential_path("pw", Path("/etc/x"), environ) == tmp_path / "gateway_pw"
    (tmp_path / "pw").touch()
    assert credential_path("pw", Path("/etc/x"), environ) == tmp_path / "pw"


def test_only_a_plain_name_is_one() -> None:
    assert credential_name("credential:mqtt-password") == "mqtt-password"
    assert credential_name("secrets/password") is None
    assert [credential_name(f"credential:{text}") for text in ("", "../x", "a/b", ".x")] == [""] * 4
