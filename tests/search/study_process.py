"""`python -m tests.search.study_process FOLDER`: a whole search in a process of its own, to be killed; no Keras."""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import locked
from pipeline.machine import Resources
from pipeline.search.engines.local import LocalEngine, Work
from pipeline.search.finalists.baseline import train_baseline
from pipeline.search.finalists.distillation import distil
from pipeline.search.finalists.ensemble import choose_networks
from pipeline.search.finish import chosen, finish
from pipeline.search.loop import run_trials
from tests.search.stubs import InstantEngine, Silence, keep_teacher, make_context, make_study, train, unlimited, warm_up


def run(
    folder: Path, num_trials: int = 20, num_workers: int = 1, has_children: bool = False, crash_at: str = ""
) -> dict[str, Any]:  # fmt: skip
    """Search, or go on with what is there, to the end; `crash_at` names a place at which to die."""
    if crash_at:
        os.environ["PIPELINE_CRASH_AT"] = crash_at
    with locked(folder / "lock", f"study {folder.name}"):
        engine: Any = InstantEngine(train, num_workers)
        if has_children:
            engine = LocalEngine([Resources(1)] * num_workers, folder / "trials.log", Work(train, warm_up))
            engine.start()
        try:
            study = make_study(folder, unlimited(num_trials), make_context(baseline={"filters": 16}))
            if not study.store.has_final_model():
                run_trials(study, engine, Silence())
                keep_teacher(folder)
                distil(study, engine, Silence(), chosen(study))
                train_baseline(study, engine, Silence(), chosen(study))
                choose_networks(study, engine, Silence(), chosen(study))
            finished = finish(study, engine, Silence())
            study.store.close()
        finally:
            if has_children:
                engine.stop()
    return {
        "winner": finished.winner.number,
        "epochs": finished.card.epochs,
        "test": finished.card.evaluation.test.accuracy,
    }


def jump_clock() -> None:
    """Let the wall clock of this process jump by a day, forth and back, ten times a second."""
    real, shift = time.time, [0.0]

    def keep_jumping() -> None:
        while True:
            time.sleep(0.1)
            shift[0] = 86400.0 if shift[0] <= 0 else -86400.0

    time.time = lambda: real() + shift[0]
    threading.Thread(target=keep_jumping, daemon=True).start()


def main() -> int:
    """Run as a command; exit as the product does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--children", action="store_true")
    parser.add_argument("--jump-clock", action="store_true")
    options = parser.parse_args()
    if options.jump_clock:
        jump_clock()
    try:
        print(json.dumps(run(options.folder, options.trials, options.workers, options.children)))
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
