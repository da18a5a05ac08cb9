"""What a search costs beside the trainings: milliseconds a trial for each part, over many trials that train at once.

    python benchmarks/search_overhead.py
    python benchmarks/search_overhead.py --oracle asha --trials 2000 --mirror

Trials of the space `tiny` climb three rungs of 1, 3 and 9 epochs; a training only writes its epochs. Printed are, for
each tenth of the trials, the milliseconds a trial of

- ask:     the oracle, the cost of a network, what fits into the time
- tell:    what becomes of a trial
- store:   one durable transaction for each turn of the loop
- epochs:  the rows that children write, each a transaction of its own
- rest:    the loop around it: free disk, stop file, new epochs
- mirror:  with --mirror, sending what is new to an MLflow store in a file, which a search does in the background

and how long the finished study takes to open again. `stub` is a random oracle without KerasTuner; it shows the study
itself. Sum and reopening are held to 60 s and 2 s for 10,000 trials. The seed is 3.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the stubs of the tests

from pipeline.records import Objective
from pipeline.search.loop import run_trials
from tests.search import stubs

PARTS = ("ask", "tell", "store", "epochs", "rest", "mirror")


class Stopwatch:
    """Adds up the seconds of the functions that it wraps; one within another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.open: list[float] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed as a part."""

        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            self.open.append(0.0)
            try:
                return function(*arguments)
            finally:
                seconds = time.perf_counter() - started
                self.seconds[part] += seconds - self.open.pop()
                if self.open:
                    self.open[-1] += seconds

        return call


class Reporter(stubs.Silence):
    """Prints a line for each tenth of the trials."""

    def __init__(self, watch: Stopwatch, num_trials: int, study: Any, push: Callable[[], None]) -> None:
        self.watch, self.study, self.push = watch, study, push
        self.block = max(1, num_trials // 10)
        self.began = time.perf_counter()
        self.last = dict.fromkeys(PARTS, 0.0)
        self.num_shown = 0

    def refresh(self, _running: Any) -> None:
        """Print when another block is done."""
        if len(self.study.rows) >= self.num_shown + self.block:
            self.num_shown += self.block
            self.push()
            now = {part: self.watch.seconds[part] for part in PARTS}
            now["rest"] = time.perf_counter() - self.began - sum(now.values())
            cells = [f"{(now[part] - self.last[part]) / self.block * 1000:9.3f}" for part in PARTS]
            print(f"{self.num_shown:>8}{''.join(cells)}", flush=True)
            self.last = now


def make_oracle(name: str, study: Any) -> Any:
    """Return one of the product's oracles, or the stub."""
    if name == "stub":
        return stubs.StubOracle(study.context.space)
    from pipeline.search.oracles import Proposer

    return Proposer(name, study.context.space, 3, Objective(), len(stubs.RUNGS))


def make_mirror(folder: Path, workspace: Path) -> Callable[[], None]:
    """Return the function that sends what is new to MLflow."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from pipeline.search.storage.store import StudyStore
    from pipeline.tracking.mirror import MlflowMirror

    mirror = MlflowMirror(StudyStore(folder / "study.db"), workspace)
    return mirror.push


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--oracle", choices=("stub", "asha", "tpe", "random"), default="stub")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--mirror", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as workspace:
        folder = Path(workspace) / "study"
        budget = stubs.unlimited(options.trials)
        study = stubs.make_study(folder, budget)
        study.make_oracle = lambda: make_oracle(options.oracle, study)
        watch = Stopwatch()
        study.consult()  # its imports are no overhead of a trial
        push = watch.timed("mirror", make_mirror(folder, Path(workspace))) if options.mirror else lambda: None
        study.ask, study.tell = watch.timed("ask", study.ask), watch.timed("tell", study.tell)  # type: ignore[method-assign]
        study.store.save = watch.timed("store", study.store.save)  # type: ignore[method-assign]
        train = watch.timed("train", stubs.train_at_once)
        study.observe = watch.timed("epochs", study.observe)  # type: ignore[method-assign]
        print(f"milliseconds a trial, oracle {options.oracle}\n{'trials':>8}{''.join(f'{part:>9}' for part in PARTS)}")
        reporter = Reporter(watch, options.trials, study, push)
        started = time.perf_counter()
        run_trials(study, stubs.InstantEngine(train), reporter)
        total = time.perf_counter() - started
        study.store.close()
        started = time.perf_counter()
        again = stubs.make_study(folder, budget)
        print(f"{total:.1f} s for {len(again.rows):,} trials; opened again in {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
