"""How fast this machine trains, by a few steps of a typical network in each child before the first trial."""

import dataclasses
from dataclasses import dataclass

from pipeline.machine import has_bfloat16
from pipeline.search.engines.base import Engine
from pipeline.search.timing.budget import PROBE_FACTOR, SECONDS_PER_TRIAL
from pipeline.search.timing.estimates import StudyContext
from pipeline.search.timing.speed import Speed, measure_speed
from pipeline.workflows.plan import Plan
from pipeline.workflows.progress import Progress

_PROBE_TIMEOUT = 60.0


@dataclass(frozen=True)
class MachineSpeed:
    """What was measured: `factor` multiplies estimates of seconds, a training starts in `start_seconds`."""

    factor: float = 1.0
    precision: str = "float32"
    start_seconds: float = SECONDS_PER_TRIAL


def wanted_precision(plan: Plan) -> str:
    """Return what --precision says; auto is the precision that a study began in: checkpoints serve no other.

    What is chosen by speed may be another the next time, and so are the bits: not with --deterministic.
    """
    options, begun = plan.options, plan.stored.get("precision")
    if options.precision != "auto":
        return options.precision
    return str(begun or ("float32" if options.deterministic else "auto"))


def measure_if_needed(plan: Plan, engine: Engine, context: StudyContext, progress: Progress) -> MachineSpeed:
    """Return what `measure` does, unless there is no time to divide and no precision to choose."""
    wanted = wanted_precision(plan)
    if plan.budget(context, 1.0, 0.0).is_timed or (wanted == "auto" and has_bfloat16()):
        return measure(plan, engine, context, progress)
    return MachineSpeed(precision="float32" if wanted == "auto" else wanted)


def measure(plan: Plan, engine: Engine, context: StudyContext, progress: Progress) -> MachineSpeed:
    """Let each child train some steps as soon as it is warm; what no child can say stays at its default."""
    spec = dataclasses.asdict(plan.spec)
    futures = engine.call_all(
        measure_speed, context.typical, spec, context.num_classes, context.space.builder, wanted_precision(plan)
    )
    engine.check()
    speeds: list[Speed] = []
    for future in futures:
        try:
            speeds.append(future.result(_PROBE_TIMEOUT))
        except Exception as error:  # noqa: BLE001  border: a network that cannot train is the first trial's news
            progress.say(f"  the speed of this machine was not measured: {error}", level=1)
    found = MachineSpeed()
    if speeds and len({speed.precision for speed in speeds}) == 1:
        found = dataclasses.replace(found, precision=speeds[0].precision)
    if context.parallelism.has_gpus:  # elsewhere it is a second or two, and less when a child has done it once
        start_seconds = max(SECONDS_PER_TRIAL, *(speed.start_seconds for speed in speeds), 0.0)
        found = dataclasses.replace(found, start_seconds=start_seconds)
    if not speeds:
        return found
    samples = 1000
    estimate = context.estimate(context.typical, samples) / samples
    mean = sum(speed.sample_seconds for speed in speeds) / len(speeds)
    return dataclasses.replace(found, factor=PROBE_FACTOR * mean / estimate)
