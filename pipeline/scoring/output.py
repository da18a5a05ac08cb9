"""The folder that scoring writes: plan, parts, manifest and success mark; each file is whole or absent.

    _PLAN.json             what the rows depend on, written first
    part-00000.parquet     the rows of one shard, in the order of the inputs
    _parts/part-00000.json rows, counts and SHA-256 of that part, written after it
    MANIFEST.json          model, classes, parts and counts
    _SUCCESS               written last; without it the output is not complete

Read the parts by their names, part-*.parquet: a reader that is given the folder also tries MANIFEST.json.
"""

import importlib.metadata
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from pipeline.data.readers.rows import Row as Cells
from pipeline.errors import InvalidUsage, StoppedEarly
from pipeline.files import locked, replacing, sha256_file, write_json, write_text
from pipeline.scoring.plan import SCHEMA, Plan

PLAN_FILE = "_PLAN.json"
MANIFEST_FILE = "MANIFEST.json"
SUCCESS_FILE = "_SUCCESS"
_PACKAGES = ("keras", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Row:
    """One file: its labels and its best classes with their probabilities, or the (code, detail) of why there are none.

    It has one label, or any number of them, in the order of the classes, by a model that is multi-label.
    """

    path: bytes
    labels: Sequence[tuple[str, float]] = ()
    best: Sequence[tuple[str, float]] = ()
    error: tuple[str, str] | None = None


@dataclass(frozen=True)
class PartFacts:
    """What is in one part: how many files have each label, and none at all; `sha256` is that of its file."""

    rows: int
    errors_by_code: dict[str, int]
    labels: dict[str, int]
    sha256: str
    unlabelled: int = 0

    @property
    def errors(self) -> int:
        """How many rows have no label."""
        return sum(self.errors_by_code.values())


class _Counts(TypedDict):
    """The sums over all parts, as they stand in the manifest."""

    rows: int
    ok: int
    errors: int
    errors_by_code: dict[str, int]
    labels: dict[str, int]
    unlabelled: int


@dataclass(frozen=True)
class ScoreFacts:
    """What a finished output holds; seconds and speed are those of the run that finished it.

    `unlabelled` are the files of `ok` that a multi-label model gives no label.
    """

    out: Path
    rows: int
    ok: int
    errors: int
    seconds: float
    images_per_second: float
    errors_by_code: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0


def check_folder(out: Path, plan: Plan) -> None:
    """Make sure that `out` is new, empty, or holds rows of this plan.

    Raises:
        InvalidUsage: it holds another plan or foreign files.
    """
    remedy = "choose another folder with -o, or move the old one aside with --overwrite"
    if out.exists() and not out.is_dir():
        raise InvalidUsage(f"{out} is a file, not a folder; choose another folder with -o")
    plan_path = out / PLAN_FILE
    if not plan_path.exists():
        if names := _foreign_names(out):
            raise InvalidUsage(f"{out}: holds {', '.join(names[:3])}; expected a new or empty folder; {remedy}")
        return
    try:
        found = dict(json.loads(plan_path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InvalidUsage(f"{plan_path}: {error}; expected the plan of an earlier run; {remedy}") from error
    if found.get("plan_id") != plan.plan_id:
        expected = asdict(plan)
        differing = [name for name in expected if found.get(name) != expected[name]] or ["schema"]
        shown = ", ".join(f"{name} {found.get(name)!s:.12}, now {expected.get(name)!s:.12}" for name in differing)
        raise InvalidUsage(f"{out}: holds rows of another run ({shown}); expected the same model and inputs; {remedy}")


def _foreign_names(out: Path) -> list[str]:
    """Return the names in a folder that are neither the lock nor the remains of a killed run."""
    if not out.exists():
        return []
    return sorted(entry.name for entry in out.iterdir() if entry.name != ".lock" and not is_temporary(entry))


def is_temporary(path: Path) -> bool:
    """Tell whether a file is what `files.replacing` leaves behind when its process is killed."""
    return path.name.startswith(".") and ".tmp-" in path.name


def is_output(out: Path) -> bool:
    """Tell whether a folder holds what scoring wrote."""
    return (out / PLAN_FILE).is_file()


def move_aside(out: Path) -> Path | None:
    """Rename an existing output to OUT.old-<time>, and return that name; None when there is nothing to keep.

    Raises:
        InvalidUsage: it is no output of scoring.
        StoppedEarly: a process is scoring into it.
    """
    if not out.is_dir() or not (names := _foreign_names(out)):
        return None
    if not is_output(out):
        raise InvalidUsage(
            f"{out}: holds {', '.join(names[:3])} and no {PLAN_FILE}; expected an output of `pipeline score`;"
            " choose another folder with -o"
        )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = out.resolve().with_name(f"{out.resolve().name}.old-{stamp}")
    with locked(out / ".lock", f"{out}"):
        try:
            out.resolve().rename(aside)
        except OSError as error:
            raise StoppedEarly(f"{out}: cannot be moved to {aside}: {error.strerror}; choose another -o") from error
    return aside


def prepare(out: Path, plan: Plan) -> None:
    """Put the plan in place and remove what a killed run left half-written; the caller holds the lock."""
    (out / SUCCESS_FILE).unlink(missing_ok=True)
    write_json(out / PLAN_FILE, {"schema": SCHEMA, "plan_id": plan.plan_id, **asdict(plan)})
    (out / "_parts").mkdir(exist_ok=True)  # after the plan, without which the folder would be foreign
    for folder in (out, out / "_parts"):
        for entry in folder.iterdir():
            if is_temporary(entry):
                entry.unlink()


def _part_path(out: Path, index: int) -> Path:
    """Return the file of one shard."""
    return out / f"part-{index:05d}.parquet"


def _part_facts_path(out: Path, index: int) -> Path:
    """Return the file that says what one part must hold."""
    return out / "_parts" / f"part-{index:05d}.json"


def write_part(out: Path, plan: Plan, index: int, rows: Sequence[Row]) -> None:
    """Write the rows of one shard, and then what they must hash to."""
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.Table.from_pylist([_row_cells(row, plan) for row in rows], schema=_parquet_schema(plan))
    with replacing(_part_path(out, index)) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression="zstd")
        sha256 = sha256_file(temporary)
    errors = Counter(row.error[0] for row in rows if row.error)
    labels = Counter(name for row in rows for name, _ in row.labels)
    unlabelled = sum(not row.labels and row.error is None for row in rows)
    facts = PartFacts(len(rows), dict(errors), dict(labels), sha256, unlabelled)
    write_json(_part_facts_path(out, index), {"plan_id": plan.plan_id, **asdict(facts)})


def _parquet_schema(plan: Plan) -> Any:
    """Return the pyarrow schema of a part; `label` and `probability` are lists where images may have several labels."""
    import pyarrow as pa

    names = ("label", "probability", "status", "error_code", "error_detail")
    ranked = [f"top{rank}_{name}" for rank in range(1, plan.top_k + 1) for name in names[:2]]
    fields = [pa.field("path", pa.string(), nullable=False)]
    for name in (*names, *ranked):
        kind = pa.float32() if name.endswith("probability") else pa.string()
        kind = pa.list_(kind) if plan.is_multi_label and name in names[:2] else kind
        fields.append(pa.field(name, kind, nullable=name != "status"))
    return pa.schema(fields, metadata={"plan_id": plan.plan_id})


def _row_cells(row: Row, plan: Plan) -> Cells:
    """Return the cells of one row by column; the name of a file that is not UTF-8 is shown with escapes."""
    cells: Cells = {"path": row.path.decode("utf-8", "backslashreplace"), "status": "ok"}
    if row.error:
        detail = row.error[1].encode("utf-8", "backslashreplace").decode("utf-8")
        cells |= {"status": "error", "error_code": row.error[0], "error_detail": detail}
    elif plan.is_multi_label:
        cells |= {"label": [name for name, _ in row.labels], "probability": [share for _, share in row.labels]}
    else:
        cells |= dict(zip(("label", "probability"), row.labels[0], strict=True))
    for rank, (label, probability) in enumerate(row.best[: plan.top_k], start=1):
        cells |= {f"top{rank}_label": label, f"top{rank}_probability": probability}
    return cells


def read_part(out: Path, plan: Plan, index: int) -> PartFacts | None:
    """Return what a part holds, when it is there, undamaged and of this plan; else None."""
    try:
        found = json.loads(_part_facts_path(out, index).read_bytes())
        if found.pop("plan_id") != plan.plan_id:
            return None
        facts = PartFacts(**found)
        return facts if sha256_file(_part_path(out, index)) == facts.sha256 else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # half-written or damaged: the shard is scored again


def finish(out: Path, plan: Plan, about: Mapping[str, object]) -> ScoreFacts:
    """Count all parts, write the manifest (with what `about` adds to it) and then the success mark.

    Raises:
        RuntimeError: the parts do not add up to one row for each path.
    """
    parts = [part for index in range(plan.num_parts) if (part := read_part(out, plan, index))]
    rows = sum(part.rows for part in parts)
    if len(parts) != plan.num_parts or rows != plan.num_paths:
        raise RuntimeError(f"{out}: {rows} rows in {len(parts)} parts; expected {plan.num_paths} in {plan.num_parts}")
    manifest = {
        "schema": SCHEMA,
        "plan_id": plan.plan_id,
        **about,
        **_counts(parts),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
        "parts": [
            {"file": _part_path(out, index).name, "rows": part.rows, "sha256": part.sha256}
            for index, part in enumerate(parts)
        ],
    }
    write_json(out / MANIFEST_FILE, manifest)
    write_text(out / SUCCESS_FILE, sha256_file(out / MANIFEST_FILE) + "\n")
    return _facts_of(out, manifest)


def _counts(parts: Sequence[PartFacts]) -> _Counts:
    """Return the sums over all parts, the most frequent code and label first."""
    errors: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    for part in parts:
        errors.update(part.errors_by_code)
        labels.update(part.labels)
    rows = sum(part.rows for part in parts)
    return {
        "rows": rows,
        "ok": rows - errors.total(),
        "errors": errors.total(),
        "errors_by_code": dict(errors.most_common()),
        "labels": dict(labels.most_common()),
        "unlabelled": sum(part.unlabelled for part in parts),
    }


def _facts_of(out: Path, manifest: Mapping[str, Any]) -> ScoreFacts:
    """Return the facts that a manifest holds."""
    names = ("rows", "ok", "errors", "seconds", "images_per_second", "errors_by_code", "labels")
    return ScoreFacts(out, **{name: manifest[name] for name in names}, unlabelled=manifest.get("unlabelled", 0))


def read_facts(out: Path, plan: Plan) -> ScoreFacts | None:
    """Return the facts of an output that is complete and undamaged, else None."""
    manifest_path = out / MANIFEST_FILE
    try:
        if (out / SUCCESS_FILE).read_text(encoding="utf-8").strip() != sha256_file(manifest_path):
            return None
    except (OSError, ValueError):
        return None
    if not all(read_part(out, plan, index) for index in range(plan.num_parts)):
        return None
    return _facts_of(out, json.loads(manifest_path.read_bytes()))
