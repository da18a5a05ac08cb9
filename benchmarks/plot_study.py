"""Draw a study: every trial's validation accuracy against its parameters, and every learning curve.

python benchmarks/plot_study.py fashion-mnist-1 docs/search.png     # in the workspace of the study
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator, NullFormatter

from pipeline.search.ranking import winner
from pipeline.search.storage.store import StudyStore
from pipeline.search.storage.studies import open_study


def main(study: str, target: str) -> None:
    """Write the picture."""
    store = open_study(Path.cwd(), study)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    draw_trials(store, left)
    draw_curves(store, right)
    test = (store.get("result") or {}).get("test")
    title = f"{study}: {len(store.trials())} trials"
    if test:
        low, high = test["ci95"]
        title += f"; test accuracy of the winner {test['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%})"
    figure.suptitle(title)
    figure.savefig(target, dpi=110)


def draw_trials(store: StudyStore, axes: plt.Axes) -> None:
    """Draw one point a trial; the winner is ringed."""
    rows = [row for row in store.trials() if row.score is not None]
    best = winner(rows, store.spec().ranking)
    markers = {"max": "o", "avg": "s", "stride": "^"}
    for pooling, marker in markers.items():
        chosen = [row for row in rows if row.params.get("pooling", "max") == pooling]
        axes.scatter(
            [r.num_params for r in chosen], [r.score for r in chosen], marker=marker, label=f"pooling {pooling}"
        )
    if best:
        axes.scatter([best.num_params], [best.score], s=220, facecolors="none", edgecolors="black", label="winner")
    axes.set(xscale="log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="parameters", ylabel="validation accuracy")
    axes.grid(alpha=0.3)
    axes.legend()


def draw_curves(store: StudyStore, axes: plt.Axes) -> None:
    """Draw the validation accuracy of each trial by epoch; finalists start anew at their second rung."""
    best = winner(store.trials(), store.spec().ranking)
    for row in store.trials():
        epochs = store.epochs(row.number)
        is_best = best is not None and row.number == best.number
        axes.plot(
            [epoch.step for epoch in epochs],
            [epoch.val_accuracy for epoch in epochs],
            marker=".",
            color="black" if is_best else None,
            linewidth=2 if is_best else 1,
            alpha=1 if is_best else 0.6,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch, counted over both rungs", ylabel="validation accuracy")
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main(*sys.argv[1:])
