import torch

from sleep_lightning.sleep import SleepConfig, is_answer, plan_windows, retrieve, run_window_loop, wake, zero_memory
from sleep_lightning.sleep.retrieval import likeness
from tests.conftest import tiny_batch, tiny_model

L = 4
EVIDENCE = torch.tensor([[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]])


def sequence(question: list[int]) -> torch.Tensor:
    return torch.cat((EVIDENCE, torch.tensor([question])), 1)


def found(question: list[int], k: int, answers: list[bool] | None = None) -> list[int]:
    model, tokens = tiny_model(vocab_size=14), sequence(question)
    marks = torch.tensor([[False] * 12 + (answers or [False] * len(question))])
    window = plan_windows(torch.cat((torch.full((1, 12), -100), torch.ones(1, len(question)).long()), 1), L)[-1]
    result = retrieve(model, tokens, marks, window, SleepConfig(L, retrieved_windows=k))
    return [] if result is None else result[0].tolist()


def test_the_window_with_the_questions_token_comes_back() -> None:
    for token in range(2, 14):
        assert found([0, token], 1) == EVIDENCE[0, (token - 2) // L * L :][:L].tolist()


def test_several_come_back_in_their_order_and_never_more_than_there_are() -> None:
    assert found([12, 3], 2) == [2, 3, 4, 5, 10, 11, 12, 13]
    assert found([12, 3], 9) == EVIDENCE[0].tolist()
    assert found([12, 3], 0) == []


def test_answers_are_not_looked_for() -> None:
    assert found([3, 12, 13], 1, [False, True, True]) == [2, 3, 4, 5]
    assert found([3, 12, 13], 1, [False, False, False]) == [10, 11, 12, 13]


def test_likeness_is_the_sum_of_best_cosines() -> None:
    model, asking, evicted = tiny_model(vocab_size=14), torch.tensor([[0, 5]]), EVIDENCE.view(1, 3, L)
    unit = torch.nn.functional.normalize(model.embedding.weight.detach(), dim=-1)
    expected = [sum(max(float(unit[q] @ unit[t]) for t in w) for q in (0, 5)) for w in evicted[0].tolist()]
    torch.testing.assert_close(likeness(model, asking, torch.zeros(1, 2).bool(), evicted)[0], torch.tensor(expected))


def test_the_loop_puts_them_in_front_of_the_question() -> None:
    """With as many windows as there are, answers are those of the whole sequence read in one window."""
    model, batch = tiny_model(pattern="AA"), tiny_batch(ring=6)
    config = SleepConfig(6, retrieved_windows=3)
    memory = zero_memory(model, len(batch.tokens), config)
    windows = plan_windows(batch.labels, 6)
    *_, (window, h, _) = run_window_loop(
        model, batch.tokens, windows, memory, config, answers_BT=is_answer(batch.labels)
    )
    whole, _ = wake(model, batch.tokens, memory)
    torch.testing.assert_close(h, whole[:, window.start :])
