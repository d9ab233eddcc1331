"""``serve``: sessions of a trained model over HTTP."""

import argparse
from collections.abc import Callable

MEGABYTE = 10**6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="change a key, e.g. sleep.n_passes=4"
    )
    parser.add_argument(
        "--checkpoint", required=True, metavar="RUN|FILE", help="a run, a checkpoint, or what export wrote"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8321, help="port; 0: any (default: 8321)")
    parser.add_argument(
        "--tokens", metavar="FILE", help="lines NAME:TOKEN (default: SLEEP_LIGHTNING_TOKENS, or one is made)"
    )
    parser.add_argument("--directory", default="sessions", metavar="DIR", help="of saved sessions (default: sessions)")
    parser.add_argument(
        "--memory-mb", type=int, default=1000, help="of sessions in memory; others lie on disk (default: 1000)"
    )
    parser.add_argument("--max-batch", type=int, default=32, help="sessions that share a forward (default: 32)")
    parser.add_argument(
        "--policy", choices=("on_full", "idle"), default="on_full", help="when windows are slept on (default: on_full)"
    )
    parser.add_argument("--audit", metavar="FILE", help="append a line for every use of a session (JSON)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=NUMBER", help="change a limit of requests, e.g. passes=8"
    )


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    import os
    import sys
    from pathlib import Path

    from sleep_lightning.cli.console import plain_console, print_facts
    from sleep_lightning.cli.places import file_to_write
    from sleep_lightning.formatting import in_bytes
    from sleep_lightning.names import check_path
    from sleep_lightning.serve.limits import Limits
    from sleep_lightning.serve.overrides import check_overrides
    from sleep_lightning.serve.server import bind, check_installed, is_loopback
    from sleep_lightning.serve.tokens import FORM, fresh_token, read_tokens

    check_installed()
    for flag, path in (("--checkpoint", a.checkpoint), ("--directory", a.directory), ("--tokens", a.tokens or ".")):
        check_path(flag, path)
    for flag, value, least, most in (
        ("--port", a.port, 0, 65535),
        ("--memory-mb", a.memory_mb, 1, 10**9),
        ("--max-batch", a.max_batch, 1, 4096),
    ):
        if not least <= value <= most:
            raise ValueError(f"{flag} {value} must be from {least} to {most}")
    limits, audit, tokens = Limits.parsed(a.limit), file_to_write("--audit", a.audit), read_tokens(a.tokens)
    if tokens is None and not is_loopback(a.host):
        raise ValueError(f"--host {a.host} can be reached by others, so --tokens FILE is needed; write {FORM}")
    try:
        Path(a.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--directory {a.directory} cannot be created ({error.strerror}); choose another") from error
    if not os.access(a.directory, os.W_OK | os.X_OK):
        raise ValueError(f"--directory {a.directory} cannot be written; choose another, or chmod u+wx it")
    check_overrides(a.overrides)
    listening = bind(a.host, a.port)

    from sleep_lightning.serve.opening import open_model
    from sleep_lightning.serve.server import serve
    from sleep_lightning.session import SessionPool
    from sleep_lightning.training.runtime.threads import choose_threads

    choose_threads()
    opened = open_model(a.checkpoint, a.overrides)
    sleep = opened.experiment.sleep
    limits = limits.reaching(sleep.n_passes, a.limit)
    pool = SessionPool(
        opened.model,
        sleep,
        a.memory_mb * MEGABYTE,
        a.directory,
        tokenizer=opened.tokenizer,
        policy=a.policy,
        audit=audit,
        max_batch=a.max_batch,
    )
    made = None
    if tokens is None:
        made, tokens = fresh_token()

    def run() -> int:
        host, port = listening.getsockname()[:2]
        facts = {
            "model": f"{a.checkpoint}, windows of {sleep.window_size}, N={sleep.n_passes}",
            "sessions": f"{len(pool.entries)} in {a.directory}; {in_bytes(pool.session_bytes)} each",
            "address": f"http://{f'[{host}]' if ':' in host else host}:{port}/v1/sessions",
            "token": made or f"of {len(tokens.owners)} owners",
        }
        if not is_loopback(a.host):
            facts["note"] = "tokens and texts are sent in the clear; put a proxy with TLS in front"
        print_facts(plain_console(), facts)
        serve(pool, tokens, limits, listening, lambda: print("ready; Ctrl-C saves all sessions", flush=True))
        print(f"saved {len(pool.entries)} sessions in {a.directory}", file=sys.stderr)
        return 0

    return run
