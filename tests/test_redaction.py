"""What marks a secret, and what does not: paths, ports and user names stay, so that what is printed can be used."""

import pytest

from sleep_lightning import redaction
from sleep_lightning.redaction import one_line, redact, redact_uri, remember, remember_environment, remember_uri


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_pattern", None)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:pa/ss@word@db/x", "postgresql://me:***@db/x"),
        ("postgresql+psycopg://me:1234@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        ("postgresql://me:two words'@db/x", "postgresql://me:***@db/x"),
        ("http://:canary@host", "http://:***@host"),
        ("https://canary@host/x", "https://***@host/x"),
        ("mysql://me@h/x?password=canary&ssl=1", "mysql://me@h/x?password=***&ssl=1"),
        ("mysql://me@h/x?ssl=1&sslpassword=canary#a", "mysql://me@h/x?ssl=1&sslpassword=***#a"),
        ("http://h/?access_token=canary;x=1", "http://h/?access_token=***;x=1"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dcanary", "mssql+pyodbc:///?odbc_connect=***"),
        ("http://me:${oc.env:PW}@h/?token=${oc.env:T}", "http://me:${oc.env:PW}@h/?token=${oc.env:T}"),
    ],
)
def test_secrets_of_a_uri(uri: str, shown: str) -> None:
    assert redact_uri(uri) == shown == redact_uri(shown)
    if " " not in uri:
        assert redact(f"see '{uri}', and (a:b@c)") == f"see '{shown}', and (a:b@c)"


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow.db",
        "sqlite:////a:b@c/x.db",
        "http://host:5000/#/experiments/1?x=me@there",
        "postgresql://me@host/x?sslkey=/home/me/key.pem",
        "http://[::1]:5000/x",
    ],
)
def test_what_is_no_secret_stays(uri: str) -> None:
    assert redact_uri(uri) == redact(uri) == uri


def test_a_known_secret_is_hidden_as_a_word_wherever_it_stands() -> None:
    remember_uri("postgresql://me:p%40ss@db/x?sslpassword=hunter2")
    assert redact("no entry with p@ss or p%40ss; key 'hunter2'") == "no entry with *** or ***; key '***'"
    assert redact("hunter22 and grasp@sso") == "hunter22 and grasp@sso"
    remember(["", "abc"])
    assert redact("abc") == "abc", "too short to be told from a word"
    remember_uri("postgresql://mlflow:mlflow@localhost/mlflow")
    assert redact("mlflow server") == "mlflow server", "as public as the user's name"


def test_variables_that_are_called_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_PASSWORD", "WANDB_API_KEY", "MY_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, f"canary-{name}")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    monkeypatch.setenv("APPLICATION_CREDENTIALS", "/etc/hostname")
    remember_environment()
    assert redact("canary-PGPASSWORD canary-MY_TOKEN, canary-WANDB_API_KEY") == "*** ***, ***"
    assert redact("parallel /etc/hostname") == "parallel /etc/hostname"


def test_keys_that_are_called_secrets() -> None:
    plain = {"loggers": [{"class_path": "my.Logger", "init_args": {"api_key": "canary-1", "pad_token": "canary-2"}}]}
    redaction.remember_named({"tracking": plain, "token": ["canary-3", 7]})
    assert redact("canary-1 canary-2 canary-3") == "*** canary-2 ***"


def test_an_error_is_cut_after_it_is_redacted() -> None:
    text = f"{'x' * 280}\n postgresql://me:canary-canary@db/x"
    assert len(one_line(text)) == redaction.LINE and "canary" not in one_line(text)
