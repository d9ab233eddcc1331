"""Names, reasons and paths that shells, terminals, markup and HTML would obey: shown as they are, or refused."""

import json
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.names import printable
from tests.cli.cli import ROOT
from tests.sweep.studies import ToldStudy

UNUSABLE = (
    "../../../escaped", "..", ".", "", "/etc/escaped", "a/b", "a/../../b", "./a", "a\nb", "\n", "a\rb", "\x1b[2J",
    "\x1b]0;title\x07", "a\tb", "a\x00b", "a\x7fb", "\x08\x08\x08", "\x0c", "x" * 201, "\u00e9" * 150,
)  # fmt: skip
"""No folder shall have such a name."""
ODD = (
    "[/red]", "x[/y]", "a[bold]b", "[red]", "[[", "]", "[/]", "[link=x]y", "\\[a]", ":smile:", "{a}", "%s%n",
    "${oc.env:HOME}", "$(touch escaped)", "`touch escaped`", "a;touch escaped", "a&b", "a|b", "a b", " a", "a ", "'",
    "a'b\"c", "<b>x</b>", "<script>alert(1)</script>", "&amp;", "-rf", "--help", "-", "#1", "a?x=1", "a:b@c", "*", "~",
    '"', "%41", "=1", "!!int 3", "null", "007", "a\u202eb", "\u00e9\u4e16", "...",
)  # fmt: skip
"""A folder may have such a name, and the terminal shows it as it is."""


def drawn(text: str) -> str:
    """What a terminal would have to obey in a text: nothing, but for the end of a line."""
    return "".join(c for c in text if c != "\n" and not c.isprintable())


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep/er/inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep/er/inside")
    monkeypatch.setenv("COLUMNS", "300")


def sweep_file(name: str) -> str:
    Path("tiny.yaml").write_text(
        f"name: {json.dumps(name)}\nbase: {ROOT}/conf/rule110.yaml\noverrides: [tracking.enabled=false]\n"
        "space: {sleep.n_passes: {choices: [1]}}\nsampler: grid\n"
    )
    return "tiny.yaml"


@pytest.mark.parametrize("name", UNUSABLE, ids=repr)
def test_a_name_that_no_folder_shall_have_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", sweep_file(name), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: sweep tiny.yaml: name=") and said.err.count("\n") == 1
    assert not drawn(said.err) and len(said.err) < 300
    assert main(["compare", f"{ROOT}/conf/rule110.yaml", "--arms", f"{name}:sleep.n_passes=1"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: --arms") and said.err.count("\n") == 1 and not drawn(said.err)
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "er", "inside", "tiny.yaml"]


def test_odd_names_of_sweeps_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (name for name in ODD[::3] if "/" not in name):
        assert main(["sweep", sweep_file(name.replace("${", "\\${")), "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{printable(name)}: 1 points") and not drawn(said)
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "er", "inside", "tiny.yaml"]


def test_odd_reasons_and_folders_reach_terminal_and_page_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = [reason for reason in (*ODD, *UNUSABLE) if reason and "\x00" not in reason]
    study = ToldStudy(Path("runs/sweeps/x[/y] a[bold]b"))
    for reason in reasons:
        study.fail(1, failed=reason, flops_spent=0.0)
    assert main(["sweep", "show", str(study.folder), "--all"]) == 0
    said = capsys.readouterr().out
    assert not drawn(said.replace("\t", ""))
    rows = [line.split("│")[1:-1] for line in said.splitlines() if line.startswith("│")]
    shown = {row[0].strip(): row[-1] for row in rows if row[0].strip()}
    for number, reason in enumerate(reasons):
        if "\n" not in reason and "\t" not in reason:
            assert shown[str(number)].strip().startswith(printable(reason).strip()[:40]), reason
    assert "runs/sweeps/x[/y] a[bold]b" in said
    assert main(["sweep", "list"]) == main(["sweep", "report", str(study.folder)]) == 0
    said = capsys.readouterr().out
    assert f"{study.folder}/report.html" in said and not drawn(said)
    page = (study.folder / "report.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<b>x" not in page
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}


@pytest.mark.parametrize("place", [*ODD, "a\nb", "\x1b[2J", "\x1b]0;title\x07", "a\x7fb"], ids=repr)
def test_a_path_that_is_not_there_is_named_as_it_is(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([f"--checkpoint={place}.ckpt"], [f"--checkpoint=none/{place}"]):
        assert main(["test", *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and not drawn(said)
        assert printable(words[0].partition("=")[2]) in said
    assert not list(Path().iterdir())
