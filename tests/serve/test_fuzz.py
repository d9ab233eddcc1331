"""Whatever a client sends, generated from OpenAPI: no 5xx, and no crash."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import booleans

from sleep_lightning.serve.app import create_app
from sleep_lightning.serve.limits import Limits
from sleep_lightning.serve.tokens import BearerTokens
from tests.serve.conftest import TOKENS, make_pool

pytestmark = pytest.mark.slow
EXAMPLES = 40
"""Requests for each operation."""


class Counts(dict[str, list[int]]):
    """Statuses by operation."""

    def check(self, label: str, response: Any) -> None:
        self.setdefault(label, []).append(response.status_code)
        assert response.status_code < 500, (label, response.request.content, response.text)
        if response.status_code >= 400:
            assert list(response.json()) == ["error"], response.text


def test_no_request_is_answered_with_5xx(tmp_path: Path) -> None:
    """Half of the requests go to a session that is there."""
    limits = Limits(sessions=8, tokens=64, new_tokens=8, passes=4, windows=1000, waiting=8)
    with make_pool(tmp_path) as pool:
        schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(pool, BearerTokens(TOKENS), limits))
        name, counts = pool.create("alice"), Counts()
        headers = {"Authorization": f"Bearer {next(iter(TOKENS))}"}

        def run(case: Any, known: bool) -> None:
            if known and case.method != "DELETE" and "id" in (case.path_parameters or {}):
                case.path_parameters["id"] = name
            counts.check(case.operation.label, case.call(headers=headers))

        quiet = settings(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )  # fmt: skip
        for result in schema.get_all_operations():
            quiet(given(case=result.ok().as_strategy(), known=booleans())(run))()
    assert len(counts) >= 19
    good = {label: sum(200 <= status < 300 for status in statuses) for label, statuses in counts.items()}
    assert sum(n > 0 for n in good.values()) > len(counts) / 2, good
