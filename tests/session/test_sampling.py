import pytest
import torch

from sleep_lightning.session.sampling import Sampling

LOGITS = torch.tensor([0.1, 0.5, 0.2, 0.2]).log()


def share(token: int, n: int = 4000, **options: float | int | None) -> float:
    sampling = Sampling(**{"temperature": 1.0, "seed": 0} | options)  # type: ignore[arg-type]
    generator = sampling.generator(LOGITS.device)
    return sum(sampling.draw(LOGITS, generator) == token for _ in range(n)) / n


def test_the_likeliest() -> None:
    assert Sampling().draw(LOGITS, None) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 0.5), ({"temperature": 0.5}, 0.25 / 0.34), ({"top_k": 2}, 0.5 / 0.7), ({"top_k": 99}, 0.5)],
)
def test_shares(options: dict[str, float], expected: float) -> None:
    assert abs(share(1, **options) - expected) < 0.03


def test_top_p_takes_the_fewest_that_hold_it() -> None:
    assert share(1, 50, top_p=0.5) == 1 == share(1, 50, top_p=1e-9)
    assert share(0, 300, top_p=0.9) == 0 < share(0, 300, top_p=0.91)


def test_a_seed_gives_the_same_draws() -> None:
    sampling = Sampling(1.0, seed=3)
    first, second = sampling.generator(LOGITS.device), sampling.generator(LOGITS.device)
    draws = [[sampling.draw(LOGITS, g) for _ in range(20)] for g in (first, second)]
    assert draws[0] == draws[1] and len(set(draws[0])) > 1
