"""A server of a tiny model in this process, and a client of each of two tenants."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sleep_lightning.config import load_experiment
from sleep_lightning.runs.model_folder import write_model_folder
from sleep_lightning.serve.app import create_app
from sleep_lightning.serve.limits import Limits
from sleep_lightning.serve.tokens import BearerTokens
from sleep_lightning.session import SessionPool
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks.words import Words
from sleep_lightning.testing.tiny import tiny_model
from tests.cli.cli import ROOT, SMALL

L = 6
VOCAB = tuple("abcdefghijk")
TOKENS = {"alice-token-0123456789": "alice", "bob-token-0123456789abc": "bob"}
MODEL = tiny_model(vocab_size=len(VOCAB), pattern="GAJA").eval()


def make_pool(folder: Path, **options: Any) -> SessionPool:
    config = SleepConfig(window_size=L, n_passes=3)
    return SessionPool(MODEL, config, 10**7, folder, tokenizer=Words(VOCAB), max_batch=8, **options)


class Tenants:
    """Clients of one running application."""

    def __init__(self, client: TestClient, pool: SessionPool) -> None:
        self.pool, self.client = pool, client

    def call(self, who: str, method: str, path: str, **options: Any) -> Any:
        token = next(token for token, owner in TOKENS.items() if owner == who)
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **options)

    def post_json(self, who: str, path: str, content: bytes) -> Any:
        """What says that it is JSON."""
        headers = {"Content-Type": "application/json"}
        return self.call(who, "POST", f"/v1/sessions{path}", content=content, headers=headers)

    def post(self, who: str, path: str, **body: Any) -> Any:
        return self.call(who, "POST", f"/v1/sessions{path}", json=body)

    def get(self, who: str, path: str = "") -> Any:
        return self.call(who, "GET", f"/v1/sessions{path}")

    def new(self, who: str = "alice", **body: Any) -> str:
        made = self.post(who, "", **body)
        assert made.status_code == 201, made.text
        return f"/{made.json()['id']}"


@pytest.fixture
def limits() -> Limits:
    return Limits(sessions=5, tokens=200, new_tokens=20, passes=8, windows=50, waiting=4)


@pytest.fixture
def tenants(tmp_path: Path, limits: Limits) -> Iterator[Tenants]:
    with make_pool(tmp_path / "sessions") as pool:
        app = create_app(pool, BearerTokens(TOKENS), limits)
        with TestClient(app, raise_server_exceptions=False) as client:
            yield Tenants(client, pool)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """An untrained Rule 110 model, as export writes it."""
    experiment = load_experiment(ROOT / "conf" / "rule110.yaml", SMALL)
    write_model_folder(tmp_path / "tiny", experiment, experiment.build_model(), "# tiny\n")  # type: ignore[arg-type]
    return tmp_path / "tiny"
