"""What a trained model answers without its memory: the baseline that says how much of a score the memory carries."""

from sleep_lightning.compare.beside import score_beside, with_changes
from sleep_lightning.runs.damage import NUMBER, check_content, read_json
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import write_json
from sleep_lightning.training.evaluation import load_trained


def window_alone(directory: RunDirectory, steps: int) -> float:
    """Exact match of a finished run's final weights on the test split, the memory zeroed at every boundary.

    The same sequences as in its score, whatever N: what is zeroed does not depend on it. Cached in the run directory.
    """
    file = directory.path / "test_window.json"
    like, remedy = {"exact_match": NUMBER}, "remove it: it is measured again"
    content = read_json(file, like, remedy) if file.exists() else {}
    if content.get("steps") != steps:  # it was resumed since
        experiment, model = load_trained(str(directory.last), [])
        found = score_beside(model, with_changes(experiment, ["window"]), "test")["window"]["all"]
        write_json(file, content := {"steps": steps, "exact_match": found.exact_match})
    check_content(file, content, like, remedy)
    return float(content["exact_match"])
