"""What a trained model answers without its memory: the baseline that says how much of a score the memory carries."""

from sleep_lightning.compare.beside import score_beside, with_changes
from sleep_lightning.compare.kept import kept
from sleep_lightning.runs.damage import NUMBER
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.training.evaluation import load_trained


def window_alone(directory: RunDirectory, steps: int) -> float:
    """Exact match of a finished run's final weights on the test split, the memory zeroed at every boundary.

    The same sequences as in its score, whatever N: what is zeroed does not depend on it. Cached in the run directory.
    """

    def measure() -> dict[str, float]:
        experiment, model = load_trained(str(directory.last), [])
        scores = score_beside(model, with_changes(experiment, ["window"]), "test")["window"]
        return {"exact_match": scores["all"].exact_match}

    return float(kept(directory.path / "test_window.json", steps, {"exact_match": NUMBER}, measure)["exact_match"])
