"""What an oracle costs a search of many trials: milliseconds of processor time for an ask and a tell, by trials told.

    python benchmarks/oracles.py --trainings 10000 --out oracles.json

Nothing is trained: scores are random, one training in five fails, four run at once. The space is cnn.
"""

import argparse
import json
import random
import resource
import time
from pathlib import Path
from typing import Any

from pipeline.records import Objective
from pipeline.search.oracles import Proposer
from pipeline.space import load_space

NUM_PARTS = 5


def measured(oracle: str, minimise: str | None, num_trainings: int) -> dict[str, Any]:
    """Return milliseconds for each part of a search, and seconds in all."""
    proposer = Proposer(oracle, load_space("cnn"), 0, Objective("val_accuracy", minimise), 3 if oracle == "asha" else 1)
    rng, running, begun, parts = random.Random(0), [], 0, []
    start = last = time.process_time()
    for index in range(1, num_trainings + 1):
        while len(running) < 4:
            proposal = proposer.propose(begun, lambda proposal: True)
            assert proposal is not None
            begun += proposal.rung == 0
            running.append(proposal)
        ended = running.pop(0)
        values = (rng.random(), rng.random())[: 2 if minimise else 1]
        proposer.tell(ended.number, ended.rung, None if rng.random() < 0.2 else values)
        if index % (num_trainings // NUM_PARTS) == 0:
            now = time.process_time()
            parts.append(round((now - last) * 1000 * NUM_PARTS / num_trainings, 2))
            last = now
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"oracle": oracle, "minimise": minimise, "ms": parts, "seconds": round(last - start, 1), "peak_mb": peak}


def main() -> None:
    """Measure all oracles but the Gaussian process, which takes seconds for an ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=10_000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for oracle in ("random", "grid", "tpe", "asha"):
        for minimise in (None, "mflops"):
            rows.append(measured(oracle, minimise, options.trainings))
            print(json.dumps(rows[-1]), flush=True)
    options.out.write_text(json.dumps({"trainings": options.trainings, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
