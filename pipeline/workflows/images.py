"""The images of a search: decoded or found decoded, split, and what is said of them."""

from dataclasses import dataclass

from pipeline.data.cache.images import ImageCache, open_cache
from pipeline.data.source import Source, encodable
from pipeline.data.splits.dataset import Dataset, split_dataset
from pipeline.workflows.plan import Plan
from pipeline.workflows.progress import Progress, decoding_report

_SHOWN_FILES = 5


@dataclass(frozen=True)
class PreparedImages:
    """The images of a study, and whether a mirror image keeps its class."""

    dataset: Dataset
    allows_flips: bool = True


def prepare_images(plan: Plan, progress: Progress) -> PreparedImages:
    """Decode the images, or find them decoded; split them; say what cannot be used and what leaks."""
    source, options, workspace = plan.source, plan.options, plan.request.workspace
    several = ", several labels an image" if source.is_multi_label else ""
    progress.say(f"study {plan.study}: {len(source):,} images, {len(source.classes)} classes{several}")
    cache = open_cache(source, plan.spec, workspace, options.cache_limit, decoding_report(progress))
    _say_what_is_missing(source, cache, progress)
    dataset = split_dataset(source, cache, workspace, options.folds, options.allow_leak)
    _say_splits(dataset, options.folds, progress)
    allows_flips = True
    if options.augment == "auto":
        flips = dataset.check_flips()
        allows_flips = flips.keeps_class
        progress.say(f"  {flips.described()}")
    if dataset.num_moved:
        progress.say(
            f"  {dataset.num_moved} image(s) moved to another split: new near-duplicates, or a class without any"
        )
    return PreparedImages(dataset, allows_flips)


def _say_what_is_missing(source: Source, cache: ImageCache, progress: Progress) -> None:
    for item in cache.bad[:_SHOWN_FILES]:
        progress.say(f"  not used: {encodable(item.path)}: {item.code}, {item.detail}")
    if cache.bad:
        progress.say(f"  {len(cache.bad)} unusable file(s) in all; they are listed in the study's bad_files.json")
    if source.empty_classes:
        names = ", ".join(source.empty_classes[:_SHOWN_FILES])
        progress.say(f"  no images in {len(source.empty_classes)} class folder(s): {names}")
    if cache.is_streamed:
        progress.say(
            "  too large for --cache-limit or the disk: images are decoded again in every epoch, which is slower"
        )


def _say_splits(dataset: Dataset, num_folds: int | None, progress: Progress) -> None:
    pixels = " x ".join(map(str, dataset.spec.shape))
    counts = ", ".join(f"{number:,} {name}" for name, number in dataset.counts.items())
    folds = f", {num_folds} folds of train + val" if num_folds else ""
    progress.say(f"  {counts}{folds}; {pixels} pixels, {dataset.spec.dtype}")
    if num_leaked := int(dataset.leaked.sum()):
        progress.say(
            f"  the given split leaks: {num_leaked:,} test image(s) have a copy in train or val; they are left out "
            "of\n  the test accuracy, and the accuracy with them is shown beside it"
        )
