"""How fast images are scanned, checked, split and cached, each against a yardstick in the same run, as JSON lines.

    python benchmarks/data.py cifar FOLDER      check + split + cache of JPEG files against a bare Pillow loop
    python benchmarks/data.py photos [COUNT]    224 x 224 JPEG files to 96 x 96 against a full decode and resize
    python benchmarks/data.py scan [COUNT]      a tree of empty files: scan and key
    python benchmarks/data.py memory [COUNT...] peak memory of a check and a split of so many small files
    python benchmarks/data.py child FOLDER      what decoding in a disposable child costs against decoding in threads
    python benchmarks/data.py stream FOLDER     batches in random order, decoded anew, against the same in threads

Everything generated lies in a folder of its own under TMPDIR, which is deleted. Each figure is the median of n runs.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
from accuracy import describe_machine, installed
from PIL import Image

from pipeline.data.cache.images import SpecOptions, choose_spec, open_cache
from pipeline.data.cache.stamps import source_key
from pipeline.data.decoding.chunks import Chunk, decode_chunk
from pipeline.data.decoding.decoders import CHUNK, Decoders, chunks_of
from pipeline.data.readers.registry import open_source
from pipeline.data.splits.dataset import split_dataset
from pipeline.records import ImageSpec

THREADS = 2
RUNS = 3
SAMPLE_SECONDS = 0.005
STEPS = ("scan", "cache", "check", "split")
LIMIT = 40 << 30


def report(name: str, **facts: object) -> None:
    """Print one line."""
    print(json.dumps({"name": name, **facts, "machine": describe_machine(), "versions": installed()}), flush=True)


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def image_files(root: Path) -> list[str]:
    """Return every file below a folder."""
    return sorted(f"{folder}/{name}" for folder, _, names in os.walk(root) for name in names)


def in_threads(action: Callable[[str], object], paths: list[str]) -> None:
    """Apply an action to every path in THREADS threads, 64 paths a task."""
    jobs = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda job: [action(path) for path in job], jobs))


def bare_decode(path: str) -> object:
    """Decode a file with Pillow and do nothing else."""
    return np.asarray(Image.open(path).convert("RGB"))


def full_decode_and_resize(path: str) -> object:
    """Decode a whole picture and shrink it, as a plain loader does."""
    return np.asarray(Image.open(path).convert("RGB").resize((96, 96), Image.Resampling.BILINEAR))


def check_and_cache(root: Path, workspace: Path, image_size: int | None = None) -> int:
    """Do what a search does with a folder before its first trial; return the number of near-duplicate clusters."""
    source = open_source(str(root), workspace)
    cache = open_cache(source, choose_spec(source, SpecOptions(image_size)), workspace, LIMIT)
    split_dataset(source, cache, workspace, allow_leak=True)
    return len(np.unique(cache.clusters.near)) - 1


def cifar(root: Path) -> None:
    """Measure check + split + cache of a folder of small JPEG files, and opening it again."""
    paths = image_files(root)
    bare, whole, reopened = [], [], []
    for _ in range(RUNS):
        bare.append(timed(partial(in_threads, bare_decode, paths)))
        with tempfile.TemporaryDirectory() as folder:
            whole.append(timed(partial(check_and_cache, root, Path(folder))))
            source = open_source(str(root), Path(folder))
            spec = choose_spec(source, SpecOptions())
            reopened.append(timed(lambda: open_cache(source, spec, Path(folder), LIMIT)))  # noqa: B023
    rates = [len(paths) / statistics.median(seconds) for seconds in (bare, whole)]
    report(
        "cifar", num_images=len(paths), n=RUNS, bare_seconds=bare, whole_seconds=whole, reopen_seconds=reopened,
        bare_rate=round(rates[0]), whole_rate=round(rates[1]), ratio=round(rates[1] / rates[0], 3), bar=0.8,
        reopen_bar_seconds=1.0,
    )  # fmt: skip


def photos(count: int) -> None:
    """Measure the decoding of generated photographs at a reduced size."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_photos(Path(folder, "set"), count)
        paths = image_files(root)
        fulls, decodings = [], []
        for _ in range(RUNS):
            fulls.append(timed(partial(in_threads, full_decode_and_resize, paths)))
            decodings.append(timed(partial(decode_all, paths, ImageSpec(96, 96, 3))))
        full, decoding = statistics.median(fulls), statistics.median(decodings)
        whole = timed(partial(check_and_cache, root, Path(folder), 96))
    report(
        "photos", num_images=count, n=RUNS, full_seconds=fulls, decode_seconds=decodings,
        full_rate=round(count / full), decode_rate=round(count / decoding), whole_rate=round(count / whole),
        decode_ratio=round(full / decoding, 3), whole_ratio=round(full / whole, 3), bar=1.5,
    )  # fmt: skip


def decode_all(paths: list[str], spec: ImageSpec) -> None:
    """Decode files in disposable children, as scoring does."""
    from pipeline.data.source import FileLocation

    with Decoders(THREADS) as decoders:
        chunks = chunks_of(lambda row: FileLocation(paths[row]), range(len(paths)), spec.num_bytes)
        for _ in decoders.map(partial(decode_chunk, spec=spec), chunks):
            pass


def write_photos(root: Path, count: int) -> Path:
    """Write JPEG files of 224 x 224 with the detail of photographs: 100 pictures, each many times with another byte."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(100):
        layers = [
            np.asarray(
                Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((224, 224), 3), np.float32
            )
            / side**0.5
            for side in (4, 16, 56, 112)
        ]
        mixed = np.sum(layers, axis=0)
        buffer = io.BytesIO()
        pixels = (255 * (mixed - mixed.min()) / np.ptp(mixed)).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    for number in range(count):
        path = root / f"class-{number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % 100] + str(number).encode())
    return root


def scan(count: int) -> None:
    """Measure scan and key of a generated tree, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1000):
            place = Path(folder, "set", f"class-{number:04d}")
            place.mkdir(parents=True)
            for index in range(count // 1000):
                os.close(os.open(place / f"picture-{index:06d}.jpg", os.O_CREAT | os.O_WRONLY))
        bare = timed(lambda: image_files(Path(folder, "set")))
        facts = in_process("scan_here", folder)
    report("scan", num_paths=count, n=1, walk_seconds=bare, bar_seconds=60, bar_megabytes=500, **facts)


def scan_here(folder: str) -> dict[str, float]:
    """Scan and key the tree in this process; return seconds and peak memory over the interpreter with its imports."""
    before = peak_megabytes()
    started = time.perf_counter()
    source = open_source(str(Path(folder, "set")), Path(folder))
    scanned = time.perf_counter()
    source_key(source)
    return {
        "scan_seconds": scanned - started,
        "key_seconds": time.perf_counter() - scanned,
        "megabytes": peak_megabytes() - before,
    }


def memory(sizes: list[int]) -> None:
    """Measure the memory of a check and of a split for some numbers of images, each in a process of its own."""
    tops: dict[int, float] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_noise(Path(folder, "set"), size)
            peaks = peaks_of("memory_here", folder)
        tops[size] = max(peak[0] for step, peak in peaks.items() if step != "split")
        slope = round((tops[size] - tops[sizes[0]]) * 2**20 / (size - sizes[0])) if size > sizes[0] else None
        report(
            "memory", num_images=size, n=1, bar_megabytes=300, check_megabytes=tops[size], bytes_per_image=slope,
            anonymous_and_resident_megabytes=peaks,
        )  # fmt: skip


def write_noise(root: Path, count: int) -> None:
    """Write small pictures, no two of which are alike: BMP files of 16 x 16, which are written fastest."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "BMP")
    num_bytes = 16 * 16 * 3
    header, rng = buffer.getvalue()[:-num_bytes], np.random.default_rng(0)
    for label in range(10):
        (root / f"class-{label}").mkdir(parents=True)
    for number in range(count):
        (root / f"class-{number % 10}" / f"{number:07d}.bmp").write_bytes(header + rng.bytes(num_bytes))


def memory_here(folder: str) -> None:
    """Check, then split, in this process; say on stdout when a step begins."""
    import pyarrow.parquet

    import pipeline.data.splits.manifest
    from pipeline.data.quality.check import check_data

    print("imports", pyarrow.parquet.__name__, pipeline.data.splits.manifest.__name__, flush=True)
    print("scan", *memory_of("self"), flush=True)
    source = open_source(str(Path(folder, "set")), Path(folder))
    print("cache", flush=True)
    cache = open_cache(source, choose_spec(source, SpecOptions()), Path(folder), LIMIT)
    print("check", flush=True)
    check_data(source, cache)
    print("split", flush=True)
    split_dataset(source, cache, Path(folder))


def peaks_of(function: str, folder: str) -> dict[str, tuple[float, float]]:
    """Return the peak of anonymous and of resident memory, in MB over the interpreter with its imports, of each step of
    a function of this file.

    Resident memory counts the pages of mapped files, which the system takes back when it needs them; the peak of
    anonymous memory is what must be there. It is sampled from outside, since sorting holds Python's lock.
    """
    peaks: dict[str, tuple[float, float]] = {}
    with subprocess.Popen(command_of(function, folder), stdout=subprocess.PIPE, text=True) as process:
        steps = ["imports"]
        reader = Thread(target=lambda: steps.extend(line.strip() for line in process.stdout or ()))
        reader.start()
        while process.poll() is None:
            now, step = memory_of(str(process.pid)), steps[-1].split()[0]
            peaks[step] = max(peaks.get(step, now)[0], now[0]), max(peaks.get(step, now)[1], now[1])
            time.sleep(SAMPLE_SECONDS)
        reader.join()
    if process.returncode:
        raise SystemExit(f"{function} failed")
    before = [float(value) for value in next(step for step in steps if step.startswith("scan")).split()[1:]]
    return {
        step: (round(peak[0] - before[0], 1), round(peak[1] - before[1], 1))
        for step, peak in peaks.items()
        if step in STEPS
    }


def memory_of(process: str) -> tuple[float, float]:
    """Return the anonymous and the resident memory of a process, in MB; nothing of one that has ended."""
    lines = Path("/proc", process, "status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes.get("RssAnon", "0").split()[0]) / 1024, int(sizes.get("VmRSS", "0").split()[0]) / 1024


def in_process(function: str, folder: str) -> object:
    """Return what a function of this file returns in a fresh process."""
    return json.loads(subprocess.run(command_of(function, folder), check=True, stdout=subprocess.PIPE).stdout)


def command_of(function: str, folder: str) -> list[str]:
    """Return the command that calls a function of this file and prints, as JSON, what it returns."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import data, json"
    return [sys.executable, "-c", f"{code}; print(json.dumps(data.{function}({folder!r})))"]


def peak_megabytes() -> float:
    """Return the largest resident size of this process so far; getrusage would count its parent's before exec."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def child(root: Path) -> None:
    """Measure decoding in children against the same decoding in threads of this process and in plain processes."""
    from multiprocessing import get_context

    from pipeline.data.source import FileLocation

    paths = image_files(root)
    spec = ImageSpec(32, 32, 3)
    work = partial(decode_chunk, spec=spec)
    chunks = list(chunks_of(lambda row: FileLocation(paths[row]), range(len(paths)), spec.num_bytes))
    rates: dict[str, list[float]] = {"threads": [], "plain processes": [], "disposable children": []}
    for _ in range(RUNS):
        with ThreadPoolExecutor(THREADS) as pool:
            rates["threads"].append(len(paths) / timed(lambda: list(pool.map(work, chunks))))
        with get_context("spawn").Pool(THREADS) as processes:
            processes.map(work, chunks[:4])
            rates["plain processes"].append(len(paths) / timed(lambda: list(processes.imap(work, chunks))))
        with Decoders(THREADS) as decoders:
            list(decoders.map(work, chunks[:4]))
            rates["disposable children"].append(len(paths) / timed(lambda: list(decoders.map(work, chunks))))
    medians = {name: round(statistics.median(values)) for name, values in rates.items()}
    report("child", num_images=len(paths), n=RUNS, chunk=CHUNK, images_per_second=medians)


def stream(root: Path) -> None:
    """Measure batches of 128 images in random order that are decoded anew, as a training whose images stream gets them,
    against the same decoding in threads of this process."""
    from pipeline.data.cache.streaming import StreamedImages, write_locations

    with tempfile.TemporaryDirectory() as folder:
        source = open_source(str(root), Path(folder))
        spec = choose_spec(source, SpecOptions())
        write_locations(Path(folder, "index.parquet"), source)
        images = StreamedImages(Path(folder, "index.parquet"), spec)
        order = np.random.default_rng(0).permutation(len(source))[: 128 * 100].reshape(100, 128)
        images[order[0]]  # starts the children
        rates: dict[str, list[float]] = {"threads": [], "disposable children": []}

        def in_thread(row: int) -> object:
            return decode_chunk(Chunk(0, [source.storage.location(row)]), spec)

        for _ in range(RUNS):
            with ThreadPoolExecutor(THREADS) as pool:
                seconds = timed(lambda: [np.stack([r[0] for r in pool.map(in_thread, batch)]) for batch in order])
            rates["threads"].append(order.size / seconds)
            rates["disposable children"].append(order.size / timed(lambda: [images[batch] for batch in order]))
    medians = {name: round(statistics.median(values)) for name, values in rates.items()}
    report("stream", num_images=order.size, n=RUNS, size=spec.shape, images_per_second=medians)


if __name__ == "__main__":
    name, *rest = sys.argv[1:] or [""]
    if name not in ("cifar", "child", "stream", "memory", "photos", "scan"):
        sys.exit(__doc__)
    if name in ("cifar", "child", "stream"):
        {"cifar": cifar, "child": child, "stream": stream}[name](Path(rest[0]))
    elif name == "memory":
        memory([int(text) for text in rest] or [6_000, 60_000, 300_000])
    else:
        default = {"photos": 100_000, "scan": 1_000_000}[name]
        {"photos": photos, "scan": scan}[name](int(rest[0]) if rest else default)
