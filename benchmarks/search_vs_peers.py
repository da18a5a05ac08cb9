"""One set, one machine, equal seconds from process start: this pipeline against its peers; a table and anytime curves.

    python benchmarks/search_vs_peers.py run fashion-mnist FOLDER --seconds 600 --seeds 0 1 2 [--tools autokeras]
    python benchmarks/search_vs_peers.py run cifar10 FOLDER --seconds 1800 --seeds 0
    python benchmarks/search_vs_peers.py table

FOLDER holds the idx files of Fashion-MNIST, or train/ and test/ with a folder per class. Each peer runs in an
environment of its own, which is made below --work (outside the repository); it gets the images as arrays in memory,
this pipeline gets the files. Each run is a cell, a JSON file in benchmarks/cells, which is kept: a second call goes on
where the first was stopped. The validation images are 10 % of train for the peers; the test images are opened once a
cell. `table` prints the cells as Markdown, and draws the curves to benchmarks/cells/SET.png.
"""

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import describe_machine, installed

HERE = Path(__file__).parent
CELLS = HERE / "cells"
KERAS = ("tensorflow-cpu==2.21.0", "keras==3.15.1", "tensorboard")
ENVIRONMENTS = {
    "keras-tuner": ("keras-tuner==1.4.8", "optuna==5.0.0", *KERAS),
    "autokeras": ("autokeras==3.0.0", *KERAS),
}
PEERS = {
    "autokeras": ("autokeras", "autokeras_cnn.py"),
    "keras-tuner": ("keras-tuner", "keras_tuner_hyperband.py"),
    "keras-tuner tuned": ("keras-tuner", "keras_tuner_hyperband.py", "--tuned"),
    "optuna": ("keras-tuner", "optuna_plain.py"),
    "optuna tuned": ("keras-tuner", "optuna_plain.py", "--tuned"),
}
OWN = {"pipeline": (), "pipeline, flips averaged": ("--average-flips",)}
"""This pipeline with what options."""
PATIENCE_SECONDS = 300  # a peer that is this late is ended
HEIGHT = 0.3  # of a drawing, below the best accuracy: what is lower lies outside


def main() -> None:
    """Run cells, or show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("set")
    run.add_argument("folder", type=Path)
    run.add_argument("--seconds", type=int, default=600)
    run.add_argument("--seeds", type=int, nargs="+", default=[0])
    run.add_argument("--tools", nargs="+", default=[*OWN, *PEERS])
    run.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "search-vs-peers"))
    commands.add_parser("table")
    options = parser.parse_args()
    CELLS.mkdir(exist_ok=True)
    if options.command == "table":
        return show_table()
    for seed in options.seeds:
        for tool in options.tools:
            target = CELLS / f"{options.set}-{options.seconds}s-{slug(tool)}-{seed}.json"
            if target.exists():
                continue
            cell = run_pipeline(options, tool, seed) if tool in OWN else run_peer(options, tool, seed)
            cell |= {"set": options.set, "machine": describe_machine()}
            target.write_text(json.dumps(cell, indent=1) + "\n")
            print(f"{target.stem}: test {cell['test_accuracy']:.4f} after {cell['wall_seconds']} s", flush=True)
    return None


def slug(tool: str) -> str:
    """Return the name of a tool as part of a file name."""
    return tool.replace(",", "").replace(" ", "-")


def run_pipeline(options: argparse.Namespace, tool: str, seed: int) -> dict[str, Any]:
    """Search with `pipeline search` in a folder of its own and return the cell."""
    script = str(Path(sys.executable).with_name("pipeline"))
    budget = ["--budget", f"{options.seconds}s", "--seed", str(seed), "--name", "cell", "--allow-leak", "--json"]
    with tempfile.TemporaryDirectory() as folder:
        started, began = time.monotonic(), time.time()
        command = [script, "search", str(options.folder.absolute()), *budget, *OWN[tool]]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
        seconds = time.monotonic() - started
        curve = curve_of(Path(folder, "mlruns/studies/cell/study.db"), began)
    facts = json.loads(done.stdout)
    test = facts["test"]
    return {
        "tool": tool, "seed": seed, "budget_seconds": options.seconds, "wall_seconds": round(seconds, 1),
        "test_accuracy": test.get("leaked", {}).get("accuracy_with", test["accuracy"]),  # of all test images, as peers
        "test_accuracy_without_copies": test["accuracy"], "val_accuracy": facts["winner"]["val_accuracy"],
        "num_params": facts["winner"]["num_params"], "winner": facts["winner"]["params"], "trials": facts["trials"],
        **{name: facts[name] for name in ("flip_average",) if name in facts},
        "curve": curve, "versions": installed(),
    }  # fmt: skip


def curve_of(path: Path, began: float) -> list[tuple[float, float]]:
    """Return (seconds from process start, validation accuracy) of each epoch of a study, in the order of time."""
    query = (
        "SELECT started + (SELECT SUM(seconds) FROM epoch earlier WHERE earlier.attempt = epoch.attempt AND "
        "earlier.step <= epoch.step), val_accuracy FROM epoch JOIN attempt ON attempt.id = epoch.attempt "
        "WHERE val_accuracy IS NOT NULL"
    )
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return sorted((round(when - began, 1), accuracy) for when, accuracy in connection.execute(query))


def run_peer(options: argparse.Namespace, tool: str, seed: int) -> dict[str, Any]:
    """Run a peer's script in its environment and return the cell that it wrote."""
    environment, script, *rest = PEERS[tool]
    python = make_environment(options.work / environment, ENVIRONMENTS[environment])
    data = write_arrays(options.set, options.folder, options.work / f"{options.set}.npz")
    out = options.work / "cell.json"
    out.unlink(missing_ok=True)
    where = ["--data", str(data), "--out", str(out)]
    when = ["--started", str(time.monotonic()), "--seconds", str(options.seconds), "--seed", str(seed)]
    log = options.work / "peer.log"
    with log.open("w") as file:
        command = [str(python), str(HERE / "peers" / script), *where, *when, *rest]
        subprocess.run(command, stdout=file, stderr=file, check=False, timeout=options.seconds + PATIENCE_SECONDS)
    if not out.exists():
        raise SystemExit(f"{tool} wrote no cell:\n{log.read_text()[-2000:]}")
    return dict(json.loads(out.read_text()))


def make_environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """Return the Python of an environment with some packages; one that is there is used again."""
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "done").touch()
    return python


def write_arrays(name: str, folder: Path, target: Path) -> Path:
    """Write the images that this pipeline decodes from `folder` as arrays, with their given splits."""
    if not target.exists():
        from pipeline.data.cache.images import SpecOptions, choose_spec, open_cache
        from pipeline.data.readers.registry import open_source
        from pipeline.data.source import SPLITS

        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as workspace:
            source = open_source(str(folder), Path(workspace))
            cache = open_cache(source, choose_spec(source, SpecOptions()), Path(workspace), 1 << 40)
            images = cache.images()[:]
        arrays = {}
        for split in ("train", "test"):
            rows = np.flatnonzero(source.splits == SPLITS.index(split))
            arrays |= {f"{split}_images": images[rows], f"{split}_labels": source.labels[rows].astype(np.int64)}
        temporary = target.with_suffix(".tmp.npz")
        np.savez(temporary, **arrays)
        temporary.replace(target)
    return target


def show_table() -> None:
    """Print all cells as a Markdown table and draw the curves of each set."""
    groups: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(CELLS.glob("*.json")):
        cell = json.loads(path.read_text())
        groups[cell["set"], int(cell["budget_seconds"])][cell["tool"]].append(cell)
    print("| set | budget | tool | n | test accuracy, median (range) | wall, median | validation accuracy |")
    print("|---|---|---|---|---|---|---|")
    for (name, seconds), tools in groups.items():
        for tool, cells in sorted(tools.items(), key=lambda item: -median_of(item[1], "test_accuracy")):
            tests = [cell["test_accuracy"] for cell in cells]
            test = f"{statistics.median(tests):.2%} ({min(tests):.2%} to {max(tests):.2%})"
            wall, validation = (median_of(cells, figure) for figure in ("wall_seconds", "val_accuracy"))
            print(f"| {name} | {seconds} s | {tool} | {len(cells)} | {test} | {wall:.0f} s | {validation:.2%} |")
        draw(f"{name}-{seconds}s", tools)
    print()
    for (name, seconds), tools in groups.items():
        if "pipeline" in tools and set(tools) - set(OWN):
            print(f"{name}, {seconds} s: {against_best_peer(tools)}")


def against_best_peer(tools: dict[str, list[dict[str, Any]]]) -> str:
    """Return how this pipeline compares with the peer of the best test accuracy: errors, and time to its level."""
    peers = [tool for tool in tools if tool not in OWN]
    best = max(peers, key=lambda tool: median_of(tools[tool], "test_accuracy"))
    own_error, peer_error = (1 - median_of(tools[tool], "test_accuracy") for tool in ("pipeline", best))
    level = median_of(tools[best], "val_accuracy")
    own, other = (
        statistics.median(seconds_to(cell["curve"], level) for cell in tools[tool]) for tool in ("pipeline", best)
    )
    return (
        f"{own_error / peer_error:.2f} times the error of {best}; "
        f"its best validation accuracy, {level:.2%}, comes after {own:.0f} s, there after {other:.0f} s"
    )


def seconds_to(curve: list[tuple[float, float]], level: float) -> float:
    """Return when a curve first reaches a level; infinite if it never does."""
    return min((seconds for seconds, accuracy in curve if accuracy >= level), default=float("inf"))


def median_of(cells: list[dict[str, Any]], name: str) -> float:
    """Return the median of a figure over cells."""
    return float(statistics.median(cell[name] for cell in cells))


def draw(name: str, tools: dict[str, list[dict[str, Any]]]) -> None:
    """Draw the best validation accuracy so far against seconds, and the test accuracy at the end."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), constrained_layout=True)
    for number, (tool, cells) in enumerate(sorted(tools.items())):
        for cell in cells:
            seconds, accuracies = zip(*cell["curve"], strict=True)
            label = tool if cell is cells[0] else None
            axes.step(seconds, np.maximum.accumulate(accuracies), where="post", color=f"C{number}", label=label)
            axes.plot(cell["wall_seconds"], cell["test_accuracy"], "o", color=f"C{number}")
    axes.set(
        xlabel="seconds from process start", ylabel="best validation accuracy so far; dot: test accuracy", title=name
    )
    axes.set_ylim(bottom=max(0.0, axes.dataLim.ymax - HEIGHT))
    axes.legend()
    figure.savefig(CELLS / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
