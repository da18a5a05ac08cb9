"""Jobs for the stand-in model of `colours`."""

import pytest

from pipeline.bundle import Bundle
from pipeline.card import ModelCard
from pipeline.records import ImageSpec
from pipeline.scoring.score import ScoreJob
from tests.scoring.colours import COLOURS


@pytest.fixture
def make_job(tmp_path):
    """Return a function that makes jobs of the stand-in model; the folder of rows is out/ unless said."""
    bundle = Bundle(tmp_path, ModelCard(tuple(COLOURS), ImageSpec(4, 4, 3), sha256="0" * 64))

    def make(paths, out="out", **options) -> ScoreJob:
        return ScoreJob(bundle, "models:/colours/1", paths, tmp_path / out, **options)

    return make
