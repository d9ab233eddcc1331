"""The documentation: no broken link, nothing fetched when it is read, every key of an experiment on its page."""

import re
from pathlib import Path

import pytest

from sleep_lightning.cli.help import keys
from tests.cli.cli import ROOT

pytestmark = pytest.mark.long

FETCHED = re.compile(r"<(?:link|script|img|iframe)\b[^>]*\b(?:href|src)=\"?(https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as ``make docs`` does; a warning is an error (``strict`` in mkdocs.yml)."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
        assert config.strict
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    return folder


def test_pages_are_there_and_fetch_nothing(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 25
    for page in pages:
        assert not FETCHED.search(page.read_text()), page
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert (site / "notebooks" / f"{notebook.stem}.html").exists()


def test_every_key_is_listed(site: Path) -> None:
    page = (site / "configuration.html").read_text()
    assert not [key.name for key in keys() if f"<code>{key.name}</code>" not in page]


def test_the_public_api_is_described(site: Path) -> None:
    import sleep_lightning

    page = (site / "api" / "index.html").read_text()
    names = [name for name in sleep_lightning.__all__ if name != "__version__"]
    assert not [name for name in names if f'id="sleep_lightning.{name}"' not in page]
