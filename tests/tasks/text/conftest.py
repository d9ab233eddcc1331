import pytest

from tests.tasks.text.tokenizers import KINDS, save


@pytest.fixture(scope="session", params=KINDS)
def any_tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a tokenizer of each kind in turn."""
    return save(request.param, tmp_path_factory.mktemp("tokenizers"))
