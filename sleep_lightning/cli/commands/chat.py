"""``chat``: hold a trained model as a memory, on a terminal."""

import argparse
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="change a key, e.g. sleep.n_passes=4"
    )
    parser.add_argument(
        "--checkpoint", required=True, metavar="RUN|FILE", help="a run, a checkpoint, or what export wrote"
    )
    parser.add_argument("--state", metavar="FILE", help="go on from it if it is there; save there at the end")
    parser.add_argument("--max-new-tokens", type=int, help="of an answer (default: as long as those of the task)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of answers; 0: the likeliest (default: 0)")
    parser.add_argument("--seed", type=int, help="of answers")
    parser.add_argument(
        "--policy", choices=("on_full", "idle", "manual"), help="when windows are slept on (default: on_full)"
    )
    parser.add_argument("--keep-texts", action="store_true", help="keep what is read, which /forget needs")


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli.chat import Chat, typed_lines
    from sleep_lightning.cli.console import plain_console
    from sleep_lightning.cli.places import file_to_write
    from sleep_lightning.names import check_path
    from sleep_lightning.serve.opening import open_model
    from sleep_lightning.serve.overrides import check_overrides, sleep_changes
    from sleep_lightning.session.sampling import Sampling
    from sleep_lightning.training.runtime.threads import choose_threads

    if a.max_new_tokens is not None and not 1 <= a.max_new_tokens <= 2**16:
        raise ValueError(f"--max-new-tokens {a.max_new_tokens} must be from 1 to {2**16}")
    if a.seed is not None and not 0 <= a.seed < 2**63:
        raise ValueError(f"--seed {a.seed} must be from 0 to {2**63 - 1}")
    Sampling(a.temperature)
    check_path("--checkpoint", a.checkpoint)
    state = file_to_write("--state", a.state)
    check_overrides(a.overrides)
    choose_threads()
    chat = Chat(
        open_model(a.checkpoint, a.overrides),
        plain_console(),
        state,
        a.max_new_tokens,
        a.temperature,
        a.seed,
        a.policy,
        a.keep_texts,
        sleep_changes(a.overrides),
    )

    def run() -> int:
        chat.greet()
        return chat.run(typed_lines())

    return run
