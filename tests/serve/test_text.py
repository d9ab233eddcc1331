"""Text over HTTP, through a tokenizer of a pretrained model: it says what a session alone says."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from starlette.testclient import TestClient

from sleep_lightning.cli.chat import Chat
from sleep_lightning.config import load_experiment
from sleep_lightning.runs.model_folder import write_model_folder
from sleep_lightning.serve.app import create_app
from sleep_lightning.serve.opening import open_model
from sleep_lightning.serve.tokens import BearerTokens
from sleep_lightning.session import Codec, SessionPool, SleepSession
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.testing.tiny import tiny_model
from tests.cli.cli import ROOT
from tests.serve.conftest import TOKENS, Tenants
from tests.serve.test_app import events
from tests.tasks.text.tokenizers import save

SAMPLED: dict[str, Any] = {"max_new_tokens": 40, "temperature": 1.0, "seed": 4, "keep": False}
CONFIG = SleepConfig(window_size=16, n_passes=2)


@pytest.fixture(params=["bpe_bos", "sentencepiece_bos"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(save(request.param, tmp_path))


def test_text_in_and_text_out(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_model(vocab_size=len(tokenizer), pattern="AG").eval()
    one = SleepSession(model, CONFIG, tokenizer, keep_texts=True)
    with (
        SessionPool(model, CONFIG, 10**7, tmp_path / "kept", tokenizer=tokenizer) as pool,
        TestClient(create_app(pool, BearerTokens(TOKENS)), raise_server_exceptions=False) as client,
    ):
        tenants = Tenants(client, pool)
        id = tenants.new()
        for text in ("the cat 猫", " and the dog"):
            one.append(text)
            assert tenants.post("alice", f"{id}/append", text=text).json()["tokens_seen"] == one.tokens_seen
        assert one.tokens_seen == len(tokenizer("the cat 猫 and the dog")["input_ids"])
        whole = one.ask(" who?", **SAMPLED)
        stop = whole[3:5]
        for stops, expected in (([], whole), ([stop], whole[: whole.index(stop)])):
            answer = tenants.post("alice", f"{id}/ask", text=" who?", stop=stops, **SAMPLED).json()
            said = tenants.post("alice", f"{id}/generate", text=" who?", stop=stops, **SAMPLED)
            *pieces, (_, done) = events(said.text)
            streamed = "".join(content["text"] for _, content in pieces) + done["rest"]
            assert answer["text"] == done["text"] == streamed == expected == one.ask(" who?", stop=stops, **SAMPLED)
            assert done["tokens"] == answer["tokens"] and answer["complete"] and done["complete"]
        hostile = b'{"text": "\\ud83d", "keep": false}'
        assert tenants.post_json("alice", f"{id}/ask", hostile).status_code in (200, 422)
        long = tenants.post("alice", f"{id}/append", text="x" * 70_000)
        assert long.status_code == 429 and "at once; send fewer" in long.json()["error"]


def test_a_folder_is_spoken_as_it_was_trained(tokenizer: Any, tmp_path: Path) -> None:
    """The tokenizer of a text task; its codec is the library's, whole and with its special tokens."""
    keys = ["task.window_tokens=32", "task.question_tokens=32", "task.context_windows=8", "model.d_model=16"]
    files = [f"task.train={ROOT / 'conf' / 'notes.jsonl'}", f"task.tokenizer={tokenizer.name_or_path}"]
    experiment = load_experiment(ROOT / "conf" / "text.yaml", [*keys, "model.d_ff=24", *files])
    write_model_folder(tmp_path / "tiny", experiment, experiment.build_model(), "# tiny\n")  # type: ignore[arg-type]
    opened = open_model(str(tmp_path / "tiny"), ["sleep.n_passes=3"])
    assert opened.experiment.sleep.n_passes == 3 and experiment.sleep.n_passes == 2
    codec = Codec.of(opened.tokenizer)
    assert codec.bos == (tokenizer.bos_token_id,) and codec.eos == tokenizer.eos_token_id
    assert "<" not in opened.example[0] + opened.example[1], "it is what a person would type"
    written = io.StringIO()
    chat = Chat(opened, Console(file=written, width=200), max_new_tokens=40)
    said = [*codec.encode("猫\x1b the cat 🐈", first=True), codec.eos, *codec.encode(" dog")]
    left = iter(said)
    chat.session._next_logits = lambda: torch.eye(opened.model.vocab_size)[next(left)]  # type: ignore[method-assign]
    chat.run(["the cat", "and the dog", "??who?"])
    assert "\n猫\\x1b the cat 🐈\n" in written.getvalue(), "whole characters, none that a terminal obeys, up to the end"
    texts = codec.encode("the cat", first=True) + codec.encode("and the dog") + codec.encode("who?")
    assert chat.session.tokens_seen == 1 + len(texts) + said.index(codec.eos)
