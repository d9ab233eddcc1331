"""What the Ray launcher says of a cluster. Runs on a real one are tested in tests/cluster."""

import pytest

from sleep_lightning.sweep.launchers import RayLauncher, RayOptions


def test_a_cluster_that_asks_for_no_token_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleep_lightning.sweep.launchers.ray.connect", lambda address: (object(), False))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert RayLauncher(RayOptions(), threads=1).events == []
    monkeypatch.delenv("RAY_AUTH_MODE")
    [event] = RayLauncher(RayOptions(), threads=1).events
    assert "can run code as you" in event and "RAY_AUTH_MODE=token" in event
