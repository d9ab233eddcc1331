from sleep_lightning.config import load_experiment
from sleep_lightning.training.evaluation import score_split
from tests.cli.cli import ROOT, SMALL
from tests.conftest import tiny_model


def test_what_crosses_a_window_can_be_changed() -> None:
    experiment, model = load_experiment(ROOT / "conf" / "rule110.yaml", SMALL), tiny_model()
    kept = score_split(experiment, model, "test")["all"]
    assert score_split(experiment, model, "test", at_boundary=lambda _, memory: memory.clone())["all"] == kept
    zeroed = score_split(experiment, model, "test", at_boundary=lambda _, memory: memory.zeroed())["all"]
    assert abs(zeroed.loss - kept.loss) > 1e-3
    assert zeroed.baselines == kept.baselines
