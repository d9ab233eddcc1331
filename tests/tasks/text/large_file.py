"""What a large file of text costs: ``python -m tests.tasks.text.large_file GIGABYTES [FOLDER]``.

Writes that many gigabytes of JSON lines, opens them as the task, draws 1,000 rows of every split in a process of its
own, prints seconds and bytes, and deletes all of it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCHES, BATCH = 50, 20
FILLER = "filler " * 130


def write(path: Path, nbytes: float) -> int:
    """Records of about a kilobyte, different contexts; how many."""
    n = size = 0
    with path.open("w") as file:
        while size < nbytes:
            record = json.dumps({"context": f"{n} {FILLER}", "question": "Which?", "answer": str(n)})
            size += file.write(record + "\n")
            n += 1
    return n


def measured(path: Path, cache: Path) -> dict[str, float]:
    """``_measure`` in a new process, whose caches lie in ``cache``."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    run = [sys.executable, "-m", "tests.tasks.text.large_file", "--measure", str(path)]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _memory(kind: str) -> int:
    found = re.search(kind + r":\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _measure(path: str) -> dict[str, float]:
    from sleep_lightning.tasks.task import SPLITS
    from sleep_lightning.tasks.text import TextConfig

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, started = _memory("VmRSS"), time.monotonic()
    task = TextConfig(train=path, overlong="cut").build()
    opened = time.monotonic()
    for position in range(BATCHES):
        for split in SPLITS:
            task.batch(BATCH, seed=0, position=position, split=split)
    drawn = time.monotonic()
    TextConfig(train=path, overlong="cut", question="before").build()
    return {
        "records": sum(map(len, task.source.indices.values())),  # type: ignore[attr-defined]
        "seconds to index": opened - started,
        "seconds to draw": drawn - opened,
        "seconds to open again": time.monotonic() - drawn,
        "bytes at the peak, more than before": _memory("VmHWM") - before,
    }


def main(gigabytes: float, folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path, started = Path(place) / "large.jsonl", time.monotonic()
        n = write(path, gigabytes * 1e9)
        print(f"{path.stat().st_size / 1e9:.2f} GB, {n} records, written in {time.monotonic() - started:.0f} s")
        found = measured(path, Path(place))
        index = sum(
            file.stat().st_size for file in (Path(place) / "sleep_lightning" / "text").rglob("*") if file.is_file()
        )
        assert found.pop("records") == n
        print(f"index {index / 1e6:.0f} MB")
        for name, value in found.items():
            print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        print(json.dumps(_measure(sys.argv[2])))
    else:
        main(float(sys.argv[1]), *sys.argv[2:3])
