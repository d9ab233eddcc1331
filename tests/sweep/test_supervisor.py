"""Whatever dies, and when: no finished trial is lost, none is run twice, and the count ends exact."""

import errno
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from sleep_lightning.runs import backoff, infrastructure
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.infrastructure import DIVERGED, Cause
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep import supervisor
from sleep_lightning.sweep.folder import sole_supervisor
from sleep_lightning.sweep.launchers import LocalLauncher
from sleep_lightning.sweep.ledger import Ledger
from sleep_lightning.sweep.pruning import Curve, Pruner
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.storage import drop_torn_line
from sleep_lightning.sweep.study import FINGERPRINT, finished, open_study, points
from sleep_lightning.sweep.supervisor import Supervisor
from sleep_lightning.sweep.trial import build_feasible, build_trial
from tests.cli.cli import environment
from tests.sweep import stand_in
from tests.sweep.sweeps import small_sweep

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def _stand_in_for_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def command(self: FitProcess) -> list[str]:
        arguments = ["fit", str(self.directory.path), str(self.experiment.sleep.n_passes)]
        return [sys.executable, "-S", stand_in.__file__, *arguments]

    monkeypatch.setattr(FitProcess, "command", command)


def run(folder: Path, **options: object) -> tuple[optuna.Study, list[str]]:
    sweep = small_sweep(**options)  # type: ignore[arg-type]
    study = open_study(sweep, folder)
    supervisor = Supervisor(sweep, study, folder)
    for _ in supervisor.run(poll_seconds=0.01):
        pass
    return study, supervisor.events


def ledger(study: optuna.Study) -> Ledger:
    """Read again from the study."""
    return Ledger(study.get_trials())


def test_a_sweep_runs_to_its_budget(tmp_path: Path) -> None:
    study, events = run(tmp_path, trials=5, workers=2, seeds=[0, 1])
    trials = finished(study)
    assert len(trials) == len(study.get_trials()) == 5
    for trial in trials:
        N = trial.params["sleep.n_passes"]
        assert trial.values == pytest.approx([0.1 * N, 6e6 * N])
        assert trial.user_attrs["exact_match_by_seed"] == pytest.approx([0.1 * N] * 2)
        assert trial.user_attrs["flops_spent"] == pytest.approx(12e6 * N)  # both seeds
        assert [cost for cost, _ in trial.user_attrs["curve"]] == pytest.approx([2e6 * N, 4e6 * N, 6e6 * N])
    assert ledger(study).flops_spent == sum(2 * p.cost for p in points(trials))
    assert sum("complete: exact_match" in event for event in events) == 5


def most_at_once(sweep: Sweep, folder: Path) -> int:
    """Runs at work, at the most, while the sweep is run to its end."""
    launcher, most = LocalLauncher(folder / "trials", 1), 0
    seen: list[FitProcess] = []
    submit = launcher.submit

    def recorded(fit: FitProcess) -> None:
        submit(fit)
        seen.append(fit)

    launcher.submit = recorded  # type: ignore[method-assign]
    for _ in Supervisor(sweep, open_study(sweep, folder), folder, launcher=launcher).run(poll_seconds=0.01):
        most = max(most, sum(launcher.poll(fit) is None for fit in seen))
    return most


def test_idle_workers_train_the_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "0.1")
    sweep = small_sweep(trials=1, workers=3, seeds=[0, 1, 2, 3])
    assert most_at_once(sweep, tmp_path / "none") == 3
    [trial] = finished(open_study(sweep, tmp_path / "none"))
    assert len(trial.user_attrs["exact_match_by_seed"]) == 4
    assert trial.user_attrs["flops_spent"] == pytest.approx(4 * 6e6 * trial.params["sleep.n_passes"])
    assert sorted(path.name for path in (tmp_path / "none" / "trials").glob("*/steps")) == ["steps"] * 4
    for steps in (tmp_path / "none" / "trials").glob("*/steps"):
        assert steps.read_text().split() == list("123456")  # each was trained once
    pruned = small_sweep(trials=1, workers=3, seeds=[0, 1, 2, 3], pruner="frontier")
    assert most_at_once(pruned, tmp_path / "frontier") == 1  # a trial that is stopped early needs no further seed


def test_a_seed_that_fails_ends_the_others_of_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    plain = FitProcess.command

    def command(self: FitProcess) -> list[str]:
        failing = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
        return failing if self.directory.path.name == "0000-seed1" else plain(self)

    monkeypatch.setattr(FitProcess, "command", command)
    study, _ = run(tmp_path, trials=1, workers=3, seeds=[0, 1, 2])
    failed, other = study.get_trials()
    assert failed.state == TrialState.FAIL and failed.user_attrs["failed"].startswith("exit code 3")
    assert other.state == TrialState.COMPLETE  # the sweep went on
    assert not workers(tmp_path)
    finished_runs = sorted(path.parent.name for path in tmp_path.glob("trials/*/summary.json"))
    assert finished_runs == ["0001-seed0", "0001-seed1", "0001-seed2"]


def test_a_failed_run_is_tried_again_then_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "print('see postgresql://me:s3cret@db/x'); print('\\nout of memory'); raise SystemExit(3)"
    failing = [sys.executable, "-S", "-c", code]
    plain = FitProcess.command

    def command(self: FitProcess) -> list[str]:
        return failing if self.experiment.sleep.n_passes == 4 else plain(self)

    monkeypatch.setattr(FitProcess, "command", command)
    study, events = run(tmp_path, trials=6, retries=2)
    assert ledger(study).counted == 6
    failed = study.get_trials(states=(TrialState.FAIL,))
    assert failed and all(t.params["sleep.n_passes"] == 4 for t in failed)
    assert all(t.user_attrs["failed"] == "exit code 3: out of memory" for t in failed)
    assert all(t.user_attrs["log_tail"] == ["see postgresql://me:***@db/x", "out of memory"] * 3 for t in failed)
    assert "s3cret" not in (tmp_path / "journal.log").read_text()
    assert sum("out of memory; resumed" in event for event in events) == 2 * len(failed)


STATUS = "import pathlib, sys; file = pathlib.Path({file!r}); count = int(file.read_text()) if file.exists() else 0; "
STATUS += "file.write_text(str(count + 1)); raise SystemExit({code})"


def failing(monkeypatch: pytest.MonkeyPatch, counter: Path, code: int, times: int, passes: int = 4) -> None:
    """Runs with so many passes end with an exit code (a signal, if negative), the first so many times."""
    plain = FitProcess.command
    how = f"__import__('os').kill(__import__('os').getpid(), {-code})" if code < 0 else str(code)

    def command(self: FitProcess) -> list[str]:
        count = int(counter.read_text()) if counter.exists() else 0
        if self.experiment.sleep.n_passes != passes or count >= times:
            return plain(self)
        return [sys.executable, "-S", "-c", STATUS.format(file=str(counter), code=how)]

    monkeypatch.setattr(FitProcess, "command", command)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(backoff, "LONGEST_SECONDS", 0.02)
    monkeypatch.setattr(infrastructure, "TRIES", 2)


GRID = {"sampler": "grid", "space_only_passes": True, "trials": 4}


@pytest.mark.usefixtures("_impatient")
def test_a_full_disk_is_waited_for_and_uses_up_no_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, tmp_path / "count", int(Cause.DISK), times=5)
    study, events = run(tmp_path / "sweep", retries=0, **GRID)
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE] * 4
    said = [event for event in events if "started again in" in event]
    assert len(said) == 5 and all(f"exit code {int(Cause.DISK)}: " in event for event in said)


@pytest.mark.usefixtures("_impatient")
def test_what_finds_no_memory_is_put_aside_and_resumed_by_the_next_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, tmp_path / "count", -signal.SIGKILL, times=4)
    sweep = small_sweep(retries=0, **GRID)  # type: ignore[arg-type]
    first = Supervisor(sweep, open_study(sweep, tmp_path / "sweep"), tmp_path / "sweep")
    for _ in first.run(poll_seconds=0.01):
        pass
    assert list(first.put_aside) == [3] and sum("put aside" in event for event in first.events) == 1
    states = [trial.state for trial in first.study.get_trials()]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.RUNNING]
    study, events = run(tmp_path / "sweep", retries=0, **GRID)  # it fails once more
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE] * 4
    assert "trial 3: resumed" in events


@pytest.mark.parametrize(("code", "again"), [(3, True), (DIVERGED, False)])
def test_a_grid_point_that_failed_is_tried_by_the_next_sweep_unless_it_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, again: bool
) -> None:
    failing(monkeypatch, tmp_path / "count", code, times=2 if again else 100)
    study, _ = run(tmp_path / "sweep", retries=1, **GRID)
    before = [trial.state for trial in study.get_trials()]
    assert before == [TrialState.COMPLETE] * 3 + [TrialState.FAIL]
    assert (tmp_path / "count").read_text() == ("2" if again else "1"), "what diverged would diverge again"
    for _ in range(2):  # and what has a result then, never again
        study, _ = run(tmp_path / "sweep", retries=1, **GRID)
        states = [trial.state for trial in study.get_trials()]
        assert states == before + ([TrialState.COMPLETE] if again else [])
    passes = [trial.params["sleep.n_passes"] for trial in finished(study)]
    assert sorted(passes) == ([1, 2, 3, 4] if again else [1, 2, 3])


@pytest.mark.usefixtures("_impatient")
def test_runs_that_cannot_be_started_wait_for_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, start = [OSError(errno.ENOSPC, "No space left on device", "log")] * 3, FitProcess.start

    def starting(self: FitProcess, *arguments: object) -> object:
        if full:
            raise full.pop()
        return start(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(FitProcess, "start", starting)
    study, events = run(tmp_path, trials=2, retries=0)
    assert ledger(study).counted == 2
    assert sum("No space left on device: 'log'; started again in" in event for event in events) == 3


def test_a_sweep_of_which_every_run_fails_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FitProcess, "command", lambda self: [sys.executable, "-S", "-c", "raise SystemExit(3)"])
    monkeypatch.setattr(supervisor, "FAILED_IN_A_ROW", 3)
    study, events = run(tmp_path, trials=6, workers=1, retries=0)
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL] * 3
    assert sum(event.startswith("stopping: 3 trials failed one after another") for event in events) == 1


def test_a_result_that_is_no_number_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (
        "import json, pathlib, sys; nan = float('nan'); "
        "result = dict(status='FINISHED', exact_match=0.1, token_accuracy=0.5, loss=nan, train_flops=1e6, wall_s=1.0); "
        "pathlib.Path(sys.argv[1], 'summary.json').write_text(json.dumps(result))"
    )
    plain = FitProcess.command

    def command(self: FitProcess) -> list[str]:
        diverged = [sys.executable, "-S", "-c", broken, str(self.directory.path)]
        return diverged if self.experiment.sleep.n_passes == 4 else plain(self)

    monkeypatch.setattr(FitProcess, "command", command)
    study, _ = run(tmp_path, trials=6, objectives={"loss": "minimize"})
    failed = study.get_trials(states=(TrialState.FAIL,))
    assert failed and all(t.user_attrs["failed"] == "loss is nan" for t in failed)
    assert {t.params["sleep.n_passes"] for t in failed} == {4}
    assert ledger(study).counted == 6


def test_a_trial_above_a_bound_counts_and_is_no_result(tmp_path: Path) -> None:
    study, _ = run(tmp_path, trials=4, space_only_passes=True, sampler="grid", constraints={"exact_match": 0.27})
    trials = {t.params["sleep.n_passes"]: t for t in study.get_trials()}
    assert {n: t.state for n, t in trials.items()} == {
        **dict.fromkeys((1, 2), TrialState.COMPLETE),
        **dict.fromkeys((3, 4), TrialState.PRUNED),
    }
    assert trials[4].user_attrs["pruned"] == "exact_match 0.400 is above 0.270"


def test_an_objective_that_no_run_logs_says_so(tmp_path: Path) -> None:
    study, _ = run(tmp_path, trials=4, space_only_passes=True, sampler="grid", objectives={"val/nothing": "minimize"})
    assert {t.user_attrs["failed"] for t in study.get_trials()} == {"val/nothing, an objective, was not logged"}


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("os.kill(os.getpid(), 9)", "killed by signal 9, perhaps out of memory"),
        ("os.kill(os.getpid(), 11)", "killed by signal 11 (SIGSEGV)"),
        ("sys.exit(143)", "stopped by signal 15 (SIGTERM) from outside"),
        ("sys.exit(0)", "exit code 0: no output"),
        ("sys.exit('error: training diverged: at step 3')", "exit code 1: error: training diverged: at step 3"),
    ],
)
def test_every_end_of_a_process_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, reason: str
) -> None:
    fit = FitProcess(small_sweep().base, RunDirectory(tmp_path / "run"))
    code = f"import os, sys; {end}"
    monkeypatch.setattr(FitProcess, "command", lambda self: [sys.executable, "-S", "-c", code])
    process = fit.start(1)
    process.wait()
    assert not process.alive()
    assert fit.why_failed(process.exit_code()) == reason


def test_an_adopted_process_keeps_its_exit_code_to_itself(tmp_path: Path) -> None:
    fit = FitProcess(small_sweep().base, RunDirectory(tmp_path / "run"))
    fit.log.write_text("last\n" + "x" * 2000 + "\n")
    assert fit.why_failed(None) == "exit code unknown: " + "x" * 500


def test_trials_share_the_gpus_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-b,6")  # what a scheduler left us
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")  # so that two are seen at once
    sweep = small_sweep(trials=6, workers=2, devices=[1, 2])
    launcher = LocalLauncher(tmp_path / "trials", threads=1, devices=[1, 2])
    at_once = set()
    for _ in Supervisor(sweep, open_study(sweep, tmp_path), tmp_path, launcher=launcher).run(poll_seconds=0.01):
        at_once.add(tuple(sorted(map(str, (one.gpus() for one in launcher._processes.values() if one.alive())))))
    assert ("6", "GPU-b") in at_once
    assert not at_once & {("6", "6"), ("GPU-b", "GPU-b")}
    used = [file.read_text() for file in tmp_path.glob("trials/*/gpus")]
    assert len(used) == 6 and set(used) == {"6\n", "GPU-b\n"}


def test_without_devices_a_trial_sees_what_the_sweep_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    run(tmp_path, trials=1)
    assert [file.read_text() for file in tmp_path.glob("trials/*/gpus")] == ["None\n"]


def test_an_adopted_trial_keeps_its_gpu_and_others_keep_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two running trials lives on, on GPU 0, without its supervisor; the first has to start again."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    sweep = small_sweep(trials=2, workers=2, devices=[0, 1])
    study = open_study(sweep, tmp_path)
    dead, living = [study.ask() for _ in range(2)]
    for trial in (dead, living):
        sweep.space.suggest(trial)
    path = tmp_path / "trials" / f"{living.number:04d}-seed0"
    path.mkdir(parents=True)
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    adopted = FitProcess(sweep.base, RunDirectory(path)).start(1, "0")
    monkeypatch.delenv("STAND_IN_SECONDS")
    while not (path / "lock").exists() or FitProcess(sweep.base, RunDirectory(path)).orphan() is None:
        assert adopted.alive()
        time.sleep(0.001)
    for _ in Supervisor(sweep, study, tmp_path).run(poll_seconds=0.01):
        pass
    assert (path / "gpus").read_text() == "0\n"
    assert (tmp_path / "trials" / f"{dead.number:04d}-seed0" / "gpus").read_text() == "1\n"
    assert not (path / "again").exists()


def test_other_gpus_are_no_other_search(tmp_path: Path) -> None:
    run(tmp_path, trials=1, devices=[0])
    assert ledger(open_study(small_sweep(devices=[3, 1]), tmp_path)).counted == 1


def test_a_point_is_not_run_twice(tmp_path: Path) -> None:
    sweep = small_sweep(trials=6, workers=2)
    for key in set(sweep.space.parameters) - {"sleep.n_passes"}:
        del sweep.space.parameters[key]
    for _ in range(2):  # a second supervisor knows it from the study
        study = open_study(sweep, tmp_path)
        supervisor = Supervisor(sweep, study, tmp_path)
        for _ in supervisor.run(poll_seconds=0.01):
            pass
        assert sorted(t.params["sleep.n_passes"] for t in finished(study)) == [1, 2, 3, 4]
        assert len(list(tmp_path.glob("trials/*/summary.json"))) == 4
        refused = study.get_trials(states=(TrialState.FAIL,))
        assert refused and all(t.user_attrs["infeasible"].startswith("the same point as trial ") for t in refused)
        assert any(
            "stopping: 200 consecutive infeasible or duplicate proposals" in event for event in supervisor.events
        )


@pytest.mark.parametrize("sampler", ["random", "tpe", "qmc"])
def test_a_sweep_that_goes_on_does_not_propose_its_points_again(tmp_path: Path, sampler: str) -> None:
    for trials in (3, 6):
        study, _ = run(tmp_path, trials=trials, sampler=sampler)
        assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE] * trials


def test_points_above_a_bound_are_never_run(tmp_path: Path) -> None:
    study, _ = run(tmp_path, trials=5, constraints={"train_flops": 1.5e13})
    refused = [t for t in study.get_trials() if "infeasible" in t.user_attrs]
    assert all(t.state == TrialState.FAIL and "train_flops" in t.user_attrs["infeasible"] for t in refused)
    assert {t.params["sleep.n_passes"] for t in refused} <= {2, 3, 4}
    assert ledger(study).counted == 5
    assert not any((tmp_path / "trials" / f"{t.number:04d}-seed0").exists() for t in refused)


def test_a_bound_that_came_later_leaves_finished_trials_alone(tmp_path: Path) -> None:
    sweep = small_sweep(constraints={"train_flops": 1.0})
    assert build_trial(sweep, 0, {}, tmp_path).runs
    with pytest.raises(ValueError, match="is above 1 FLOP"):
        build_feasible(sweep, 0, {}, tmp_path)


def test_a_budget_of_flops_ends_it(tmp_path: Path) -> None:
    study, _ = run(tmp_path, trials=50, flops=5e7)
    assert 5e7 <= ledger(study).flops_spent <= 5e7 + 24e6


def test_a_snapshot_adds_up(tmp_path: Path) -> None:
    sweep = small_sweep(trials=3, workers=2)
    study = open_study(sweep, tmp_path)
    supervisor = Supervisor(sweep, study, tmp_path)
    halfway = []
    for _ in supervisor.run(poll_seconds=0.01):
        now = supervisor.snapshot()
        assert now.counted == ledger(study).counted
        assert now.ended_flops == ledger(study).flops_spent
        assert now.flops_spent == now.ended_flops + sum(trial.flops_spent for trial in now.running)
        halfway += [trial for trial in now.running if 0 < trial.progress.step < stand_in.STEPS]
    assert halfway, "no running trial was seen between its validations"
    for trial in halfway:
        N = trial.values["sleep.n_passes"]
        at = trial.progress
        assert at.accuracy is not None and at.accuracy.exact_match == pytest.approx(0.1 * N * at.step / stand_in.STEPS)
        assert trial.flops_spent == pytest.approx(1e6 * N * at.step)
        assert (trial.run, trial.runs, trial.steps) == (1, 1, sweep.base.training.max_steps)
    study.enqueue_trial({"sleep.n_passes": 1})
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={"failed": "-", "flops_spent": 5.0}))
    again = Supervisor(sweep, study, tmp_path).snapshot()
    assert again.states == {"running": 0, "complete": 3, "pruned": 0, "failed": 1, "infeasible": 0, "waiting": 1}
    assert again.ended_flops == now.ended_flops + 5
    assert [trial.point for trial in again.finished] == points(finished(study))


def test_a_trial_is_judged_once_a_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[tuple[int, int]] = []

    def why_stop(self: Pruner, curve: Curve, final_cost: float, done: Sequence[Curve]) -> str | None:
        judged.append((len(curve), len(done)))
        assert self.answers == (stand_in.ANSWERS if curve else math.inf)
        return "enough" if done else None

    monkeypatch.setattr(Pruner, "why_stop", why_stop)
    study, _ = run(tmp_path, trials=2, pruner="frontier")
    first, second = study.get_trials()
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert second.user_attrs["pruned"] == "enough"
    assert second.user_attrs["flops_spent"] < 6e6 * second.params["sleep.n_passes"]
    assert len(judged) == len(set(judged))
    assert judged[-1][1] == 1


def test_another_search_under_the_same_name_is_refused(tmp_path: Path) -> None:
    run(tmp_path, trials=1)
    with pytest.raises(ValueError, match=r"holds a sweep named small with another seeds"):
        open_study(small_sweep(seeds=[7]), tmp_path)


def test_keys_that_came_with_a_newer_version_are_no_other_search(tmp_path: Path) -> None:
    study, _ = run(tmp_path, trials=1)
    older = study.user_attrs[FINGERPRINT]
    del older["base"]["training"]["cuda_graph"], older["base"]["sleep"]["wake_passes"]
    study.set_user_attr(FINGERPRINT, older)
    assert ledger(open_study(small_sweep(), tmp_path)).counted == 1
    older["base"]["sleep"]["wake_passes"] = 7
    study.set_user_attr(FINGERPRINT, older)
    with pytest.raises(ValueError, match=r"holds a sweep named small with another base"):
        open_study(small_sweep(), tmp_path)


def test_only_one_supervisor_at_a_time(tmp_path: Path) -> None:
    with sole_supervisor(tmp_path), pytest.raises(ValueError, match="is being run by another process"):
        sole_supervisor(tmp_path).__enter__()


def test_a_torn_last_line_is_cut(tmp_path: Path) -> None:
    run(tmp_path, trials=2)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 5, "worker')
    drop_torn_line(journal)
    assert journal.read_bytes() == whole
    assert ledger(open_study(small_sweep(trials=2), tmp_path)).counted == 2


def workers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "fit" in line and any(str(folder) in part for part in line):
            found.append(process)
    return found


def test_a_living_run_of_a_dead_supervisor_is_adopted(tmp_path: Path) -> None:
    study, _ = run(tmp_path, trials=1)
    [trial] = finished(study)
    fit = FitProcess(small_sweep().base, RunDirectory(tmp_path / "trials" / f"{trial.number:04d}-seed0"))
    assert fit.orphan() is None
    code = (
        "import sys, time; from pathlib import Path; from sleep_lightning.runs.directory import RunDirectory; "
        "lock = RunDirectory(Path(sys.argv[1])).lock(); print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(fit.directory.path)],
        env=environment(),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert other.stdout is not None and other.stdout.readline() == b"locked\n"
    with pytest.raises(ValueError, match=f"is being trained by process {other.pid}; wait for it, or end it"):
        fit.directory.lock()
    watched = fit.orphan()
    assert watched is not None and watched.alive()
    watched.end()
    assert other.wait() == -signal.SIGTERM
    assert not watched.alive()
    assert fit.orphan() is None


def test_a_run_that_got_further_is_tried_again_whatever_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "fit", None)
    code = (
        "import pathlib, sys; sys.argv = ['-', 'no']; sys.path.insert(0, {folder!r}); import stand_in; "
        "write = stand_in._write\n"
        "def dying(path, text):\n"
        "    write(path, text)\n"
        "    if path.name == 'last': raise SystemExit('node lost')\n"
        "stand_in._write = dying; stand_in.fit(pathlib.Path({path!r}), 1, 0)"
    )

    def command(self: FitProcess) -> list[str]:
        folder = str(Path(stand_in.__file__).parent)
        return [sys.executable, "-S", "-c", code.format(folder=folder, path=str(self.directory.path))]

    monkeypatch.setattr(FitProcess, "command", command)
    study, events = run(tmp_path, trials=1, retries=0)
    assert ledger(study).counted == 1 and sum("node lost; resumed" in event for event in events) == 3
