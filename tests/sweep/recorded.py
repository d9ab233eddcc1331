"""Curves recorded from whole runs of this package, none of them stopped early (``recorded_curves.json``).

``search`` are points of the space of ``sweeps/depo_depth_cost.yaml`` drawn at random, each trained to its end with a
validation every 50 steps on 1,024 sequences. The recording ended before the dearest of the points drawn last had
finished, so it holds fewer of those than were drawn; a point drawn twice, which trains to the same curve, is kept once.
``comparison`` are the finished runs of ``compare`` with ``conf/depo.yaml``, ``conf/depo_fragmented.yaml`` and
``conf/rule110.yaml``: one, two and four passes, up to three seeds of each, six validations in a run.

A line is a run: its task, seed and what varied, and its validations: training FLOPs so far, exact match.
"""

import json
from pathlib import Path

from sleep_lightning.frontier import Point

FILE = Path(__file__).with_name("recorded_curves.json")
ANSWERS = {"depo": 8192, "rule110": 1024}
"""Scored in each validation: 1,024 sequences of 8 and of 1."""


def recorded(task: str, *sources: str) -> list[list[Point]]:
    """The curves of a task, from these sources."""
    runs = json.loads(FILE.read_text())
    return [[Point(*point) for point in r["points"]] for r in runs if r["task"] == task and r["source"] in sources]
