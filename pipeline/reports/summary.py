"""What was found by a search, in a few lines of text: what each is about, and what it says."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.card import (
    Calibration,
    ClassFigures,
    Evaluation,
    Figure,
    Latency,
    Leaked,
    NotFinite,
    Robustness,
    SliceFigures,
    TestResult,
)
from pipeline.records import COST_UNITS
from pipeline.search.result import SearchResult
from pipeline.text import format_seconds, one_line

_WORST_SLICES = 3
_WORST_CLASSES = 3
_SHOWN_NAMES = 3
_LONGEST = 40  # characters of a value of a table in a line

Lines = dict[str, str]
"""Lines of the summary: what they are about, and the text."""


def summary_lines(found: SearchResult) -> Lines:
    """Return what was found, the test accuracy first."""
    evaluation, winner, trials = found.evaluation, found.winner, found.trials
    others = "".join(f", {count} {name}" for name, count in trials.items() if count and name != "completed")
    return {
        "test accuracy": _test_text(found),
        **_leaked_line(evaluation.tested.leaked),
        **_not_finite_line(evaluation.tested.not_finite),
        **_other_figures(evaluation.tested),
        **_worst_classes_line(evaluation),
        **_decision_lines(found),
        **_probabilities_line(evaluation.temperature),
        **_robustness_line(evaluation.robustness),
        **_latency_line(evaluation.latency),
        **_slice_lines(evaluation.slices),
        **({"NOT A CHAMPION": found.champion_blocker} if found.champion_blocker else {}),
        "winner": f"{_answering(found)}: {found.objective} {_chosen_by(found)}, {_cost_text(found)}",
        "network": ", ".join(f"{name} {_value_text(value)}" for name, value in winner.params.items()),
        **_front_line(found),
        "trials": f"{trials['completed']} completed{others}",
        "model": found.model_uri,
        "study": f"{found.study}, {format_seconds(found.seconds)}",
    }


def accuracy_line(found: SearchResult) -> str:
    """Return what the winner is worth on images that no choice has seen."""
    return (
        f"test accuracy {found.evaluation.tested.accuracy:.2%} ({_accuracy_text(found)}) of "
        f"{_answering(found)}, trained again on train + validation: {found.model_uri}"
    )


def _answering(found: SearchResult) -> str:
    number = found.evaluation.num_networks
    return f"trial {found.winner.trial}" + (f", {number} networks" if number > 1 else "")


def _accuracy_text(found: SearchResult) -> str:
    test, (low, high) = found.evaluation.tested, found.evaluation.tested.ci95
    whole = "all labels of an image right; " if found.is_multi_label else ""
    return f"{whole}95 % interval {low:.2%} to {high:.2%}, {test.num_images:,} images"


def _test_text(found: SearchResult) -> str:
    opened = "opened once" if found.test_opened == 1 else f"opened {found.test_opened} times"
    return f"{found.evaluation.tested.accuracy:.2%}  ({_accuracy_text(found)}, {opened})"


def _cost_text(found: SearchResult) -> str:
    winner, planned = found.winner, found.evaluation.planned_epochs or 0
    text = f"{winner.num_params:,} params, {winner.mflops:,} MFLOPs"
    if winner.dense_params:
        text += f"; fully connected it had {winner.dense_params / winner.num_params:,.0f} times the params"
    if winner.epochs < planned:
        text += f"; CUT OFF after {winner.epochs} of {planned} epochs, because the time was up"
    return text


def _leaked_line(leaked: Leaked | None) -> Lines:
    if leaked is None:
        return {}
    return {
        "with leaks": f"{leaked.accuracy_with:.2%}  (if {leaked.num_images:,} test images counted that have a copy in "
        "train or val; do not quote this one)"
    }


def _not_finite_line(found: NotFinite | None) -> Lines:
    if found is None:
        return {}
    here = f"{Path.cwd()}/"
    names = [one_line(name.removeprefix(here), _LONGEST) for name in found.images[:_SHOWN_NAMES]]
    more = ", ..." if found.num_images > len(names) else ""
    return {
        "NOT COUNTED": f"{found.num_images:,} test image(s) for which the network gives NaN or infinity; "
        f"check their pixel values: {', '.join(names)}{more}"
    }


def _other_figures(test: TestResult) -> Lines:
    texts = (f"{name.replace('_', ' ')} {_figure_text(each)}" for name, each in test.metrics.items())
    return {"also": ", ".join(texts)} if test.metrics else {}


def _figure_text(figure: Figure) -> str:
    return str(figure.reason) if figure.value is None else f"{figure.value:.4f} ({_interval_text(figure)})"


def _interval_text(figure: Figure | ClassFigures) -> str:
    if figure.ci95 is None:
        return f"no interval: {figure.reason}"
    low, high = figure.ci95
    return f"{low:.4f} to {high:.4f}"


def _worst_classes_line(evaluation: Evaluation) -> Lines:
    """Return the classes that are recognised worst: by recall, or by AUC where an image may have several labels."""
    confusion, by_class = evaluation.confusion, evaluation.by_class
    keys = {name: each.auc if confusion is None else each.recall for name, each in by_class.items()}
    known = {name: key for name, key in keys.items() if key is not None}
    worst = sorted(known, key=lambda name: known[name])[:_WORST_CLASSES]
    if not worst:
        return {}
    if confusion is None:
        title, texts = "worst labels", [_label_text(name, by_class[name]) for name in worst]
    else:
        title, texts = "worst classes", [_class_text(name, by_class[name], confusion[name]) for name in worst]
    rest = f"; {len(by_class) - len(worst)} more in model.json" if len(by_class) > len(worst) else ""
    return {title: ", ".join(texts) + rest}


def _label_text(name: str, figures: ClassFigures) -> str:
    interval = _interval_text(figures) if figures.ci95 else "too few images for an interval"
    return (
        f"{one_line(name, _LONGEST)} AUC {figures.auc:.4f} ({interval}; {_precision_text(figures)}, recall "
        f"{figures.recall or 0.0:.0%} of {figures.num_images:,})"
    )


def _class_text(name: str, figures: ClassFigures, answers: Mapping[str, int]) -> str:
    low, high = figures.recall_ci95 or (0.0, 1.0)
    others = {answer: count for answer, count in answers.items() if answer != name}
    often = max(others, key=lambda answer: others[answer], default=None)
    taken = f"; {others[often]:,} taken for {one_line(often, _LONGEST)}" if often is not None else ""
    return (
        f"{one_line(name, _LONGEST)} recall {figures.recall:.1%} ({low:.1%} to {high:.1%} of {figures.num_images:,}; "
        f"{_precision_text(figures)}{taken})"
    )


def _precision_text(figures: ClassFigures) -> str:
    return "never answered" if figures.precision is None else f"precision {figures.precision:.0%}"


def _chosen_by(found: SearchResult) -> str:
    """Return the score by which the winner was chosen, with its interval where the logits were kept."""
    validation = found.evaluation.validation
    interval = (
        f" ({_interval_text(validation)}, optimistic: used to choose the winner)" if validation is not None else ""
    )
    return f"{found.winner.score or 0.0:.4f}{interval}"


def _decision_lines(found: SearchResult) -> Lines:
    """Return what the search gained, and what became of flip averaging, distillation and an ensemble if asked for."""
    from pipeline.search.finalists.distillation import distillation_text
    from pipeline.search.finalists.ensemble import ensemble_text
    from pipeline.search.worker.comparison import gain_text
    from pipeline.search.worker.flip_average import average_text

    evaluation, lines = found.evaluation, {}
    if evaluation.search_gain is not None:
        lines["against reference"] = gain_text(evaluation.search_gain)
    if evaluation.flip_average is not None:
        lines["flip averaging"] = average_text(evaluation.flip_average, found.objective)
    if evaluation.distillation is not None:
        lines["distillation"] = distillation_text(evaluation.distillation, found.objective)
    if evaluation.ensemble is not None:
        lines["ensemble"] = ensemble_text(evaluation.ensemble, found.objective)
    return lines


def _probabilities_line(temperature: Calibration | None) -> Lines:
    if temperature is None or temperature.test is None:
        return {}
    test, bins = temperature.test, f"{temperature.num_bins} bins of equal mass"
    if temperature.reason:
        return {
            "probabilities": f"calibration error {test.ece_before:.4f} ({bins}); no temperature: {temperature.reason}"
        }
    return {
        "probabilities": f"temperature {temperature.value:.3f}: calibration error {test.ece_before:.4f} before, "
        f"{test.ece_after:.4f} after ({bins})"
    }


def _robustness_line(robustness: Robustness | None) -> Lines:
    if robustness is None:
        return {}
    shifts = ", ".join(f"{pixels} px {value:.1%}" for pixels, value in robustness.shifts.items())
    changes = ", ".join(f"{name} {value:.1%}" for name, value in robustness.changes.items())
    moved = f"; moved by {shifts}" if shifts else ""
    count = f"{robustness.num_images:,} test images"
    return {"robustness": f"{robustness.accuracy:.1%} of {count} as they are{moved}; {changes}"}


def _latency_line(latency: Latency | None) -> Lines:
    if latency is None:
        return {}
    one_core = "" if latency.one_core_ms is None else f"; on one core {latency.one_core_ms:.2f} ms"
    return {"latency": f"{latency.default_ms:.2f} ms for one image with the threads of this machine{one_core}"}


def _slice_lines(slices: Mapping[str, Mapping[str, SliceFigures]]) -> Lines:
    """Return the worst values of each further column of the table, a line a column."""
    lines = {}
    for name, figures in slices.items():
        worst = list(figures.items())[:_WORST_SLICES]
        texts = (
            f"{one_line(value, _LONGEST)} {each.accuracy:.1%} ({each.ci95[0]:.1%} to {each.ci95[1]:.1%}, "
            f"{each.num_images:,} images)"
            for value, each in worst
        )
        rest = f"; {len(figures) - len(worst)} more in model.json" if len(figures) > len(worst) else ""
        lines[f"by {one_line(name, _LONGEST)}"] = ", ".join(texts) + rest
    return lines


def _front_line(found: SearchResult) -> Lines:
    """Return the front of two objectives, the cheapest trial first."""
    if not found.front or found.minimise is None:
        return {}
    form, unit = ",.0f" if found.minimise == "params" else ",.3f", COST_UNITS[found.minimise]
    texts = (f"trial {point.trial}: {point.score:.4f} at {point.cost:{form}} {unit}" for point in found.front)
    return {"front": "; ".join(texts)}


def _value_text(value: object) -> str:
    """Return a hyperparameter's value as text; floats with two digits."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)
