"""Addresses that a proxy is asked for."""

from urllib.parse import urlsplit

import pytest

from sleep_lightning.machine.proxies import through_proxy


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"https_proxy": "http://proxy:1"}, True),
        ({"all_proxy": "http://proxy:1"}, True),
        ({"http_proxy": "http://proxy:1"}, False),
        ({"no_proxy": "other"}, False),
        ({"https_proxy": "http://proxy:1", "no_proxy": "hub.example"}, False),
    ],
)
def test_by_scheme_and_host(variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for spelt in (name, name.upper()):
            monkeypatch.delenv(spelt, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert through_proxy(urlsplit("https://hub.example/x")) is expected
    assert not through_proxy(urlsplit("https:///x"))
