"""The shipped tasks, by the names that experiments give them."""

from sleep_lightning.tasks import TASKS, DepoConfig, GSMInfiniteConfig, Rule110Config


def test_shipped_tasks_are_registered_under_their_names() -> None:
    assert TASKS == {"rule110": Rule110Config, "depo": DepoConfig, "gsm_infinite": GSMInfiniteConfig}
