"""From a list of files to finished parts: decode, predict, write; the files are `scoring.output`'s."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import Bundle
from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.chunks import decode_chunk
from pipeline.data.decoding.decoders import Decoders, Killed, chunks_of
from pipeline.data.source import FileLocation
from pipeline.files import locked, sha256_json
from pipeline.records import ImageSpec
from pipeline.scoring import output
from pipeline.scoring.output import Row, ScoreFacts
from pipeline.scoring.plan import Plan, hash_paths
from pipeline.targets import answers, probabilities

_SHARD_SIZE = 4096  # rows that a kill can cost; a part of it takes ~100 KB

Predict = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Pixels (batch, height, width, channels) to logits, float32 (batch, num_classes)."""
Report = Callable[[int, int, int], None]
"""Called with (files done, files in all, files without a label) after every batch."""
_Decoded = NDArray[Any] | DecodeError


@dataclass(frozen=True)
class ScoreJob:
    """Everything that one scoring run is: which model labels which files, and where the rows go.

    `num_skipped` counts the entries of folders that are not among the paths; `hosts` are as in `FileLocation`.
    """

    bundle: Bundle
    model_uri: str
    paths: Sequence[bytes]
    out: Path
    top_k: int = 3
    batch_size: int = 256
    shard_size: int = _SHARD_SIZE
    num_skipped: int = 0
    hosts: tuple[str, ...] = ()

    @cached_property
    def plan(self) -> Plan:
        """What the output depends on; the batch size is not part of it. Files and URLs are asked once for each job."""
        return Plan(
            paths_sha256=hash_paths(self.paths, self.hosts),
            num_paths=len(self.paths),
            shard_size=self.shard_size,
            model_sha256=self.bundle.sha256,
            classes_sha256=sha256_json(self.bundle.classes),
            decoder_version=self.bundle.image.decoder_version,
            top_k=min(self.top_k, len(self.bundle.classes)),
            temperature=self.bundle.card.temperature,
            is_multi_label=self.bundle.card.is_multi_label,
        )


def already_scored(job: ScoreJob) -> ScoreFacts | None:
    """Return the facts of a finished and undamaged output of the same job; None when there is work to do.

    Raises:
        InvalidUsage: the output holds something else.
    """
    plan = job.plan
    output.check_folder(job.out, plan)
    return output.read_facts(job.out, plan)


def score(job: ScoreJob, predict: Predict, report: Report) -> ScoreFacts:
    """Give every path one row in job.out, whatever the file holds; parts that are there already are kept.

    Memory does not grow with the number of images: two batches of pixels and one shard of rows are held.

    Raises:
        InvalidUsage: the output holds something else.
        StoppedEarly: another process is scoring into the same folder.
    """
    plan = job.plan
    output.check_folder(job.out, plan)
    with locked(job.out / ".lock", f"{job.out}"):
        output.check_folder(job.out, plan)
        if facts := output.read_facts(job.out, plan):
            return facts
        output.prepare(job.out, plan)
        started = time.perf_counter()
        num_scored = _score_missing_parts(job, plan, predict, report)
        seconds = time.perf_counter() - started
        about = {
            "model": {"uri": job.model_uri, "sha256": job.bundle.sha256},
            "classes": list(job.bundle.classes),
            "skipped": job.num_skipped,
            "seconds": round(seconds, 3),
            "images_per_second": round(num_scored / seconds, 1),
        }
        return output.finish(job.out, plan, about)


def _score_missing_parts(job: ScoreJob, plan: Plan, predict: Predict, report: Report) -> int:
    """Write every part that is missing or damaged; return how many files that took."""
    kept = {index: facts for index in range(plan.num_parts) if (facts := output.read_part(job.out, plan, index))}
    done = sum(facts.rows for facts in kept.values())
    num_kept = done
    errors = sum(facts.errors for facts in kept.values())
    report(done, plan.num_paths, errors)
    with Decoders() as decoders:
        for index in range(plan.num_parts):
            if index in kept:
                continue
            rows: list[Row] = []
            for batch in _score_shard(job, decoders, index, predict):
                rows += batch
                done += len(batch)
                errors += sum(row.error is not None for row in batch)
                report(done, plan.num_paths, errors)
            output.write_part(job.out, plan, index, rows)
    return done - num_kept


def _score_shard(job: ScoreJob, decoders: Decoders, index: int, predict: Predict) -> Iterator[list[Row]]:
    """Yield the rows of one shard, batch by batch.

    An image always takes the same place in the same batch and an unreadable one leaves zeros there: one
    program is compiled, and a resumed run gives the same bytes as an uninterrupted one.
    """
    classes, spec = job.bundle.classes, job.bundle.image
    shard = job.paths[index * job.shard_size : (index + 1) * job.shard_size]
    batch_size = min(job.batch_size, job.shard_size, len(job.paths))
    for paths, decoded in _decoded_batches(decoders, shard, batch_size, spec, job.hosts):
        images = np.zeros((batch_size, *spec.shape), spec.dtype)
        for place, pixels in enumerate(decoded):
            if not isinstance(pixels, DecodeError):
                images[place] = pixels
        logits = predict(images)
        if logits.shape != (batch_size, len(classes)):
            raise ValueError(f"logits have the shape {logits.shape}; expected {(batch_size, len(classes))}")
        yield label_rows(paths, decoded, logits, job.bundle, job.top_k)


def _decoded_batches(
    decoders: Decoders, paths: Sequence[bytes], batch_size: int, spec: ImageSpec, hosts: tuple[str, ...] = ()
) -> Iterator[tuple[Sequence[bytes], list[_Decoded]]]:
    """Yield batches of paths with their pixels, in order; children decode the next while the caller uses one."""
    chunks = chunks_of(
        lambda row: FileLocation(os.fsdecode(paths[row]), hosts=hosts), range(len(paths)), spec.num_bytes
    )
    done = 0
    waiting: list[_Decoded] = []
    for _, outcome in decoders.map(partial(decode_chunk, spec=spec), chunks):
        waiting += [DecodeError("killed", outcome)] if isinstance(outcome, Killed) else outcome
        while len(waiting) >= batch_size or (waiting and done + len(waiting) == len(paths)):
            batch, waiting = waiting[:batch_size], waiting[batch_size:]
            yield paths[done : done + len(batch)], batch
            done += len(batch)


def label_rows(
    paths: Sequence[bytes], decoded: Sequence[Any], logits: NDArray[np.float32], bundle: Bundle, top_k: int
) -> list[Row]:
    """Return one row for each path; logits that are not finite make a row without a label."""
    classes = bundle.classes
    is_finite = np.asarray(np.isfinite(logits).all(axis=-1))
    finite = np.where(is_finite[:, None], logits, 0)
    shares = probabilities(finite, bundle.card.is_multi_label, bundle.card.temperature)
    order = np.argsort(-finite, axis=-1, kind="stable")[:, :top_k]  # stable: a tie goes to the first class
    chosen = answers(finite, bundle.card.is_multi_label)
    rows = []
    for place, (path, pixels) in enumerate(zip(paths, decoded, strict=True)):
        if isinstance(pixels, DecodeError):
            rows.append(Row(path, error=(pixels.code, pixels.detail)))
            continue
        if not is_finite[place]:
            rows.append(Row(path, error=("not_finite", "the model answers with NaN or infinity")))
            continue
        numbers = np.flatnonzero(chosen[place]) if bundle.card.is_multi_label else [chosen[place]]
        labels, best = (
            [(classes[number], float(shares[place, number])) for number in each] for each in (numbers, order[place])
        )
        rows.append(Row(path, labels, best))
    return rows
