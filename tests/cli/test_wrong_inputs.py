"""What one types wrong gets one sentence that names it and the way out, exit code 2, and leaves no trace.

A row is a command line and words of the sentence. It runs in a folder with an experiment, a trained run, two sweeps
and some files of other kinds.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.sweep.folder import save_sweep
from tests.cli.cli import ROOT, SMALL, fit_arguments
from tests.sweep.studies import ToldStudy

pytestmark = pytest.mark.long
SWEEPS = {
    "good": "space: {sleep.n_passes: {choices: [1, 2]}}",
    "list": "space: {sleep.n_passes: [1, 2]}",
    "values": "space: {sleep.n_passes: {values: [1, 2]}}",
    "bounds": "space: {training.muon_lr: {min: 0.01, max: 0.1}}",
    "unquoted": "space: {task.steps: {choices: [[1], [2]]}}",
    "scalar": "space: {sleep.n_passes: 3}",
    "unknown": "space: {sleep.n_pases: {choices: [1, 2]}}",
    "word": "space: {sleep.n_passes: {choices: [one]}}",
    "nothing": "space: {}",
    "seed": "space: {training.seed: {choices: [1]}}",
    "both": "space: {sleep.n_passes: {choices: [1], low: 1, high: 2}}",
    "reversed": "space: {sleep.n_passes: {low: 4, high: 1}}",
    "open": "space: {training.muon_lr: {low: 0.1}}",
    "when": "space: {sleep.n_passes: {choices: [1], when: {model.d_model: [16]}}}",
    "arm": "space: {arm: {choices: [n1, deepr]}}",
    "flops": "space: {train_flops: {choices: [many]}}",
    "grid": "space: {training.muon_lr: {low: 0.1, high: 1}}\nsampler: grid",
    "sampler": "space: {sleep.n_passes: {choices: [1]}}\nsampler: tpee",
    "objective": "space: {sleep.n_passes: {choices: [1]}}\nobjectives: {acc: maximize}",
    "budget": "space: {sleep.n_passes: {choices: [1]}}\nbudget: {trial: 3}",
    "constraint": "space: {sleep.n_passes: {choices: [1]}}\nconstraints: {memory: 3}",
    "seeds": "space: {sleep.n_passes: {choices: [1]}}\nseeds: 3",
    "storage": "space: {sleep.n_passes: {choices: [1]}}\nstorage: mysql://x",
    "override": "space: {sleep.n_passes: {choices: [1]}}\noverrides: [training.max_stepz=1]",
    "key": "space: {sleep.n_passes: {choices: [1]}}\nhours: 1",
    "spaceless": "seeds: [0]",
}
A, RUN = "fit --config conf/a.yaml", "fit --resume run"
GSM = "fit task.name=gsm_infinite"
RULE110 = "was trained with task.name=rule110, and another task is another run; drop it"
CASES: list[tuple[str, ...]] = [
    ("fly", "'fly' is no command; use one of fit, validate"),
    ("comapre conf/a.yaml", "'comapre' is no command; did you mean compare?"),
    ("train --config conf/a.yaml", "'train' is no command; did you mean fit?"),
    ("--verbose", "unrecognized arguments: --verbose; see python -m sleep_lightning --help"),
    # fit: what is trained
    ("fit", "fit needs an experiment: --config with one of conf/a.yaml; task.name=...; or --resume for a run"),
    ("fit conf/a.yaml", "argument 'conf/a.yaml' is a file, and no key=value; an experiment is given as --config "),
    ("fit conf/none.yaml", "an experiment is given as --config conf/none.yaml"),
    ("fit --config", "argument --config: expected one argument; see python -m sleep_lightning fit --help"),
    ("fit --config none.yaml", "--config none.yaml: No such file or directory; shipped experiments lie in conf/"),
    ("fit --config conf", "--config conf: Is a directory; shipped experiments lie in conf/"),
    ("fit --config run", "--config run: Is a directory; a run is resumed with --resume"),
    ("fit --config empty.yaml", "must hold sections (task, model, sleep, training, tracking), not an empty file"),
    ("fit --config good.yaml", "--config good.yaml is a sweep (it has a base and a space), no experiment; run: sweep"),
    # a key
    ("fit --max_steps 50", "--max_steps; keys are set without dashes: training.max_steps=50"),
    ("fit --max-steps=50", "keys are set without dashes: training.max_steps=50"),
    ("fit --sleep.n_pases=4", "keys are set without dashes: sleep.n_passes=4"),
    ("fit --fast", "unrecognized arguments: --fast; see python -m sleep_lightning fit --help"),
    (f"{A} max_steps=5", "there is no key 'max_steps'; did you mean training.max_steps?"),
    (f"{A} training.max_step=5", "did you mean training.max_steps?"),
    (f"{A} training.max_steps 5", "argument 'training.max_steps' is not key=value; write for example"),
    (f"{A} foo.bar=1", "there is no key 'foo.bar'; python -m sleep_lightning help all lists all keys"),
    (f"{A} training.optimizer={{class_path: torch.optim.SGD}}", "is not key=value", "a value with spaces in quotes"),
    # its value
    (f"{A} training.max_steps=many", "training.max_steps=many must be a whole number, such as 1000"),
    (f"{A} training.max_steps=0", "training.max_steps=0 must be at least 1"),
    (f"{A} training.muon_lr=.inf", "training.muon_lr=inf must be a finite number"),
    (f"{A} training.compile=maybe", "training.compile=maybe must be true or false"),
    (f"{A} training.precision=fp8", "training.precision=fp8 must be one of fp32, bf16"),
    (f"{A} training.optimizer=adamm", "training.optimizer='adamm' is unknown; use one of muon_adamw, or package."),
    (f"{A} training.optimizer=torch.optim.Adamm", "has no 'Adamm'; did you mean Adam?"),
    (f"{A} 'training.optimizer={{class_path: torch.optim.SGD, init_args: {{lrr: 1}}}}'", "init_args.lr?"),
    (f"{A} training.callbacks=[early_stoping]", "training.callbacks[0]='early_stoping'", "mean early_stopping?"),
    (f"{A} training.run_dir=run", "training.run_dir='run' holds a run already; resume it with fit --resume run, or"),
    (f"{A} training.run_dir=text.txt/x", "training.run_dir='text.txt/x' cannot be written: Not a directory; choose"),
    (f"{A} training.tbptt_windows=1", "training.tbptt_windows=1 cuts the loss off from every sleep", "use null"),
    (f"{A} task=depo", "task='depo' is no section: give it keys, for example task.name, or leave it out"),
    (f"{A} task.name=rule111", "task.name='rule111' is unknown; did you mean rule110?"),
    (f"{A} task.name=depo", "task.ring_size=6", "it is one of task.name=rule110; with task.name=depo, drop it, or"),
    ("fit sleep.n_passes=2 task.max_hops=3", "it is one of task.name=depo; with task.name=rule110, drop it, or"),
    (f"{A} task.steps=3", "task.steps=3 must be a list, each item a whole number, such as [32]"),
    (f"{A} task.class_path=nowhere.Task", "task.class_path='nowhere.Task': there is no module 'nowhere'", "correct"),
    (f"{A} model.d_model=17", "model.d_model=17 must be even"),
    (f"{A} model.n_heads=3", "model.n_heads=3 does not divide model.d_model=16", "use one of [1, 2, 4, 8]"),
    (f"{A} model.pattern=XYZ", "model.pattern='XYZ' must be one or more of the letters A, G, H, D, J; try AGAG"),
    (f"{A} model.backend=fast", "model.backend='fast' is unknown to gated_delta_rule; use auto or one of"),
    (f"{A} sleep.n_passes=0", "sleep.n_passes=0 must be at least 1: it counts ALL passes, and 1 is the plain hybrid"),
    (f"{A} sleep.n_passes=[1,2]", "sleep.n_passes=[1,2] must be a whole number, such as 1"),
    (f"{A} sleep.window_size=5", "sleep.window_size=5 puts evidence and answers into one window", "[2, 3, 4, 6, 12]"),
    (f"{A} sleep.grad_passes=9", "sleep.grad_passes=9 must be from 1 to sleep.n_passes=2, or null for all"),
    (f"{A} tracking.uri=mlflow.db", "tracking.uri='mlflow.db' is not a database or server", "use sqlite:///mlflow.db"),
    (f"{A} tracking.uri=sqlite:////dev/null/x.db", "there is no folder /dev/null", "set tracking.required=false"),
    (f"{A} tracking.experiment=", "tracking.experiment is empty; name one"),
    (f"{A} tracking.loggers=[csvv]", "tracking.loggers[0]='csvv' is unknown; did you mean csv?"),
    (f"{GSM} task.jsonl=own.jsonl", "task.jsonl=own.jsonl, line 1: 'problem' is missing (each record needs problem, "),
    (
        f"{GSM} task.jsonl=text.txt",
        "task.jsonl=text.txt, line 1: Expecting value; fix it, or write one JSON object a line",
    ),
    (f"{GSM} task.jsonl=none.jsonl", "No such file or directory; give a file of JSON lines or Parquet"),
    # resume
    (f"{RUN} task.steps=[2]", "task.steps=[2]: this run was begun with [1], and a resume cannot change it; drop it"),
    (f"{RUN} model.d_model=32", "model.d_model=32: this run was begun with 16, and a resume cannot change it; drop it"),
    (f"{RUN} task.name=depo", f"task.name=depo: run {RULE110}"),
    (f"{RUN} model.class_path=my.Model", "model.class_path=my.Model: run was trained with the hybrid model"),
    (f"{RUN} training.max_steps=1", "training.max_steps=1: the run has trained 2 steps; give more, or drop it"),
    (f"{RUN} --config conf/a.yaml", "--config conf/a.yaml with --resume: a run resumes with its own config.yaml; drop"),
    ("fit --resume conf", "conf is not a run directory (no config.yaml); runs are in runs/ by default"),
    ("fit --resume run/checkpoints/last.ckpt", "last.ckpt is not a run directory (no config.yaml); give run"),
    # validate, test, predict
    ("test run", "the following arguments are required: --checkpoint; see python -m sleep_lightning test --help"),
    ("test --checkpoint nothing", "--checkpoint nothing does not exist; give a run directory or a .ckpt file"),
    ("test --checkpoint conf/a.yaml", "--checkpoint conf/a.yaml is no checkpoint; give a run directory or a .ckpt"),
    ("validate --checkpoint junk.ckpt", "junk.ckpt is damaged", "train again"),
    ("test --checkpoint run task.name=depo", f"task.name=depo: --checkpoint run {RULE110}"),
    ("test --checkpoint run task.class_path=my.Task", f"task.class_path=my.Task: --checkpoint run {RULE110}"),
    ("test --checkpoint run model.pattern=AG", "model.pattern=AG does not fit --checkpoint run, which was trained"),
    ("test --checkpoint run --config conf/a.yaml", "unrecognized arguments: --config; see"),
    ("predict --checkpoint run --output no/x.json", "--output no/x.json: there is no folder no; create it first"),
    ("predict --checkpoint run --rows 0", "--rows 0 must be from 1 to"),
    ("predict --checkpoint run --rows x", "argument --rows: 'x' is no whole number; see"),
    # compare
    ("compare --arms n1", "the following arguments are required: YAML; see python -m sleep_lightning compare --help"),
    ("compare conf/a.yaml", "the following arguments are required: --arms; see"),
    ("compare --config conf/a.yaml --arms n1", "unrecognized arguments: --config; see"),
    ("compare good.yaml --arms n1", "--config good.yaml is a sweep"),
    ("compare conf/a.yaml --arms n0", "--arms n0: sleep.n_passes=0 must be at least 1"),
    ("compare conf/a.yaml --arms n1 n1", "--arms n1 n1 names an arm twice; give each a name of its own"),
    ("compare conf/a.yaml --arms n1,n2", "write several apart: n1 n2"),
    ("compare conf/a.yaml --arms deepr", "--arms 'deepr' is unknown; did you mean deeper?"),
    ("compare conf/a.yaml --arms wide:model.d_modle=3", "--arms wide: model.d_modle=3", "mean model.d_model?"),
    ("compare conf/a.yaml --arms n1 sleep.n_passes=2", "'sleep.n_passes=2' is a key=value: write those behind the"),
    ("compare conf/a.yaml --arms n1 --seeds 0 key=value", "'key=value' is a key=value: write those before the options"),
    ("compare conf/a.yaml --arms n1 --seeds 0 0", "--seeds 0 0 must be different numbers from 0 to 4294967295"),
    ("compare conf/a.yaml --arms n1 --seeds 0,1", "'0,1' is no whole number; write several apart: 0 1"),
    ("compare conf/a.yaml --arms n1 --jobs 0", "--jobs 0 must be from 1 to 4096"),
    ("compare conf/a.yaml --arms n1 --test-passes 0", "--test-passes 0 must be numbers of passes from 1 to"),
    ("compare conf/a.yaml --arms n1 --output text.txt/x", "--output text.txt/x cannot be written: Not a directory"),
    # cost, config, doctor, bench, help, completion, tracking, reproduce
    ("cost conf/a.yaml", "an experiment is given as --config conf/a.yaml"),
    ("cost --checkpoint run", "unrecognized arguments: --checkpoint; see python -m sleep_lightning cost --help"),
    ("config --config conf/a.yaml x", "argument 'x' is not key=value; write for example training.max_steps=500"),
    ("doctor --output no/x.json", "--output no/x.json: there is no folder no; create it first"),
    ("bench nothing", "bench 'nothing' is unknown; use one of operator, step"),
    ("bench operator --seconds 0", "--seconds 0 must be a number above 0"),
    ("bench operator --seconds soon", "argument --seconds: 'soon' is no number; see"),
    ("help n_passs", "help n_passs: there is no such key or section; did you mean sleep.n_passes?"),
    ("help fit", "help fit: that is a command; see python -m sleep_lightning fit --help"),
    ("completion fish", "invalid choice: 'fish' (choose from 'bash', 'zsh')"),
    ("tracking sync nowhere", "tracking sync nowhere: there is no such folder; runs are in runs/ by default"),
    ("tracking sink run", "invalid choice: 'sink' (choose from 'sync')"),
    ("reproduce --sweeps conf", "--sweeps conf has no reproduce_*.yaml; the shipped ones lie in sweeps/"),
    ("reproduce --so-far --page-only", "--so-far scores what is finished and --page-only does not; give one of them"),
    (f"reproduce --sweeps {ROOT}/sweeps --share 3/2", "--share '3/2' must be I/N with I from 1 to N, for example 1/3"),
    # sweep: the file
    ("sweep conf/a.yaml", "it is an experiment, no sweep; train it: fit --config conf/a.yaml, or name it as the base"),
    ("sweep none.yaml", "sweep none.yaml: No such file or directory; shipped sweeps are in sweeps/"),
    ("sweep based.yaml", "base='b/x.yaml': there is no b/x.yaml; base is relative to the folder of this file"),
    ("sweep spaceless.yaml", "space is missing; write for example space: {sleep.n_passes: {choices: [1, 2, 4]}}"),
    ("sweep list.yaml", "space.sleep.n_passes=[1, 2] must be a mapping; write {choices: [1, 2]}"),
    ("sweep values.yaml", "space.sleep.n_passes.values: there is no such key; did you mean choices?"),
    ("sweep bounds.yaml", "space.training.muon_lr.min: there is no such key; did you mean low?"),
    ("sweep unquoted.yaml", 'choice [1] must be a number, a word, true, false or null; a list goes in quotes: "[1]"'),
    ("sweep scalar.yaml", "space.sleep.n_passes=3 must be a mapping of choices, low, high"),
    ("sweep unknown.yaml", "there is no key 'sleep.n_pases'; did you mean sleep.n_passes?"),
    ("sweep word.yaml", "space.sleep.n_passes=one must be a whole number, such as 1"),
    ("sweep empty.yaml", "no keys in it; the keys are name, base, space"),
    ("sweep nothing.yaml", "space is empty; let at least one key vary, for example sleep.n_passes: {choices: [1, 2"),
    ("sweep seed.yaml", "space.training.seed cannot vary: the sweep sets it itself; list seeds in seeds"),
    ("sweep both.yaml", "space.sleep.n_passes: give choices (at least one), or low and high, not both"),
    ("sweep reversed.yaml", "space.sleep.n_passes: low=4 must be at most high=1"),
    ("sweep open.yaml", "low=0.1 and high=null must be numbers; or give choices"),
    ("sweep when.yaml", "when names model.d_model, which is not in the space; drop it"),
    ("sweep arm.yaml", "space.arm 'deepr' is unknown; did you mean deeper?"),
    ("sweep flops.yaml", "space.train_flops='many' must be a number of FLOPs above 0, for example 1.0e+12"),
    ("sweep grid.yaml", "sampler=grid needs choices or whole numbers; list them as choices"),
    ("sweep sampler.yaml", "sampler='tpee' must be one of tpe, nsga2, gp, qmc, random, grid"),
    ("sweep objective.yaml", "objectives.acc is not a known metric; use one of exact_match, token_accuracy"),
    ("sweep budget.yaml", "'budget.trial': there is no such key; did you mean budget.trials?"),
    ("sweep constraint.yaml", "constraints.memory is not a known metric; use one of state_bytes"),
    ("sweep seeds.yaml", "seeds=3 must be a list, each item a whole number"),
    ("sweep storage.yaml", "storage='mysql://x' is neither postgresql+psycopg://user@host/database nor sqlite:///"),
    ("sweep override.yaml", "there is no key 'training.max_stepz'; did you mean training.max_steps?"),
    ("sweep key.yaml", "'hours': there is no such key; the keys are name, base, space"),
    # sweep: its verbs
    ("sweep", "the following arguments are required: SPEC.yaml | run | resume"),
    ("sweep small", "sweep small: neither a sweep file (its name ends in .yaml or .yml) nor a verb; use one of run"),
    ("sweep rum good.yaml", "sweep rum: neither a sweep file", "did you mean run?"),
    ("sweep good.yaml sleep.n_passes=3", "unrecognized arguments: sleep.n_passes=3; keys are set in the file; see"),
    ("sweep good.yaml --dryrun", "unrecognized arguments: --dryrun; see"),
    ("sweep good.yaml --share 0/2", "--share '0/2' must be I/N with I from 1 to N, for example 1/3"),
    ("sweep good.yaml --records no/x.jsonl", "--records no/x.jsonl: there is no folder no; create it first"),
    ("sweep resume nothing", "'nothing' is neither a sweep in runs/sweeps/ nor the folder of one", "known are small"),
    ("sweep resume small launcher=pbs", "launcher='pbs' must be one of local, slurm, ray"),
    ("sweep resume small launcher", "'launcher' is not key=value; write for example launcher=local"),
    ("sweep show", "the following arguments are required: NAME; see python -m sleep_lightning sweep show --help"),
    ("sweep show nothing", "known are small, young"),
    ("sweep report text.txt", "'text.txt' is neither a sweep in runs/sweeps/ nor the folder of one"),
    ("sweep best young", "has no finished trial yet; go on with: sweep resume NAME"),
    ("sweep best small --max-flops 1", "--max-flops 1: the cheapest finished trial took 2e+12; allow as much"),
    ("sweep best small --export no/x.yaml", "--export no/x.yaml: there is no folder no; create it first"),
    ("sweep law young", "no run has finished yet; go on with: sweep resume young"),
    ("sweep solved small --threshold 2", "--threshold 2.0 must be an exact match above 0, at most 1; try 0.95"),
    ("sweep list small", "unrecognized arguments: small; see"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("conf").mkdir()
        Path("conf/a.yaml").write_text(load_experiment(ROOT / "conf" / "rule110.yaml", SMALL).to_yaml())
        for name, text in SWEEPS.items():
            Path(f"{name}.yaml").write_text(f"name: s\nbase: conf/a.yaml\n{text}\n")
        Path("based.yaml").write_text(f"name: s\nbase: b/x.yaml\n{SWEEPS['good']}\n")
        files = {"empty.yaml": "", "junk.ckpt": "junk", "text.txt": "hello\n", "own.jsonl": '{"question": "1 + 1?"}\n'}
        for name, text in files.items():
            Path(name).write_text(text)
        assert main(fit_arguments("run", 2)) == 0
        small, young = (ToldStudy(Path("runs/sweeps") / name) for name in ("small", "young"))
        small.finish(2, 0.5, 2e12)
        for study in (small, young):
            save_sweep(study.sweep, study.folder)
        yield folder


def all_of(folder: Path) -> dict[Path, bytes | None]:
    """Files and what they hold, without locks and what SQLite keeps beside a database."""
    paths = (path for path in folder.rglob("*") if not path.name.endswith(("lock", "-wal", "-shm")))
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_wrong_input(
    case: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = all_of(place)
    assert main(shlex.split(case[0])) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed
    for words in case[1:]:
        assert words in printed.err
    assert all_of(place) == before
