import pytest
import torch

from sleep_lightning.session.sampling import sample

LOGITS = torch.tensor([0.1, 0.5, 0.2, 0.2]).log()


def share(token: int, n: int = 4000, **options: float | int | None) -> float:
    generator = torch.Generator().manual_seed(0)
    given = {"temperature": 1.0, "top_k": None, "top_p": None} | options
    return sum(sample(LOGITS, **given, generator=generator) == token for _ in range(n)) / n  # type: ignore[arg-type]


def test_the_likeliest() -> None:
    assert sample(LOGITS, 0.0, None, None, None) == 1


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
    draws = [
        [sample(LOGITS, 1.0, None, None, g) for _ in range(20)]
        for g in (torch.Generator().manual_seed(3), torch.Generator().manual_seed(3))
    ]
    assert draws[0] == draws[1]
