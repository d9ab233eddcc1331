"""``export``: write a trained model to hand on; one that was pretrained, in the format that it came in."""

import argparse
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="RUN_DIR|CKPT", help="what was trained")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new directory")
    parser.add_argument("--source", metavar="DIR", help="what training began from (default: model.pretrained)")


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from pathlib import Path

    from sleep_lightning.cli.places import check_checkpoint
    from sleep_lightning.names import check_path

    check_checkpoint(a.checkpoint)
    for flag, path in (("--output", a.output), ("--source", a.source or ".")):
        check_path(flag, path)

    from sleep_lightning.cli.console import plain_console, print_facts
    from sleep_lightning.model import HybridLM
    from sleep_lightning.pretrained import export
    from sleep_lightning.pretrained.exporting import check_place
    from sleep_lightning.training.evaluation import load_trained
    from sleep_lightning.training.model_card import export_folder

    check_place(Path(a.output))
    experiment, model = load_trained(a.checkpoint, [])
    pretrained = isinstance(model, HybridLM) and (a.source or model.config.pretrained) is not None
    if a.source and not pretrained:
        raise ValueError(
            f"--source {a.source} is for the hybrid model, which --checkpoint {a.checkpoint} is not; drop it"
        )

    def run() -> int:
        if pretrained:
            assert isinstance(model, HybridLM)
            export(model, a.output, experiment.sleep, source=a.source)
            after = f"fit model.pretrained={a.output}"
        else:
            export_folder(Path(a.output), a.checkpoint, experiment, model)
            after = f"chat --checkpoint {a.output}"
        print_facts(plain_console(), {"written": a.output, "next": f"python -m sleep_lightning {after}"})
        return 0

    return run
