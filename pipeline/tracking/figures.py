"""What MLflow shows of a finished model: its figures as metrics and its decisions as tags."""

from pipeline.card import Calibration, Evaluation, Latency, Robustness, SearchGain, TestResult

Metrics = dict[str, float]


def evaluation_metrics(evaluation: Evaluation) -> Metrics:
    """Return every figure of a model that is defined, by the name of its metric."""
    return {
        **_test_metrics(evaluation.tested),
        **_temperature_metrics(evaluation.temperature),
        **_gain_metrics(evaluation.search_gain),
        **_robustness_metrics(evaluation.robustness),
        **_latency_metrics(evaluation.latency),
    }


def decision_tags(evaluation: Evaluation) -> dict[str, str]:
    """Return the tags that say from which trial the winner learnt, and of how many networks a model is the mean."""
    tags = {}
    if evaluation.distillation is not None and evaluation.distillation.is_kept:
        tags["pipeline.taught_by_trial"] = str(evaluation.distillation.teacher)
    if evaluation.num_networks > 1:
        tags["pipeline.num_networks"] = str(evaluation.num_networks)
    return tags


def flaw_tags(champion_blocker: str) -> dict[str, str]:
    """Return the tags by which MLflow shows why a model is no champion; none if it is one."""
    return {"pipeline.beats_majority": "false", "pipeline.flaw": champion_blocker} if champion_blocker else {}


def _test_metrics(test: TestResult) -> Metrics:
    low, high = test.ci95
    metrics: Metrics = {"test/accuracy": test.accuracy, "test/ci95_low": low, "test/ci95_high": high}
    for name, figure in test.metrics.items():
        if figure.value is not None:
            metrics[f"test/{name}"] = figure.value
        if figure.ci95 is not None:
            metrics |= _ends(f"test/{name}", figure.ci95)
    if test.majority is not None and test.majority.value is not None:
        metrics[f"test/majority_{test.majority.metric}"] = test.majority.value
    if test.not_finite is not None:
        metrics["test/num_not_finite"] = test.not_finite.num_images
    if test.leaked is not None:
        metrics |= {"test/accuracy_with_leaked": test.leaked.accuracy_with, "test/num_leaked": test.leaked.num_images}
    return metrics


def _temperature_metrics(temperature: Calibration | None) -> Metrics:
    if temperature is None or temperature.test is None:
        return {}
    test = {f"test/{name}": value for name, value in vars(temperature.test).items()}
    return {"model/temperature": temperature.value, **test}


def _gain_metrics(found: SearchGain | None) -> Metrics:
    comparison = found and found.comparison
    if not comparison or comparison.gain is None or comparison.value is None or comparison.ci95 is None:
        return {}
    gain = {"test/search_gain": comparison.gain, **_ends("test/search_gain", comparison.ci95)}
    return {**gain, f"test/default_{comparison.metric}": comparison.value}


def _robustness_metrics(robustness: Robustness | None) -> Metrics:
    if robustness is None:
        return {}
    shifts = {f"shift_{pixels}": value for pixels, value in robustness.shifts.items()}
    named = {"unchanged": robustness.accuracy, **shifts, **robustness.changes}
    return {f"robustness/{name}": value for name, value in named.items()}


def _latency_metrics(latency: Latency | None) -> Metrics:
    if latency is None:
        return {}
    one_core = {} if latency.one_core_ms is None else {"model/latency_ms_b1": latency.one_core_ms}  # as of trials
    return {"model/latency_ms_b1_default": latency.default_ms, **one_core}


def _ends(name: str, interval: tuple[float, float]) -> Metrics:
    return {f"{name}_ci95_low": interval[0], f"{name}_ci95_high": interval[1]}
