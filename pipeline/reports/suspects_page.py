"""The page of `pipeline data suspects`: the most suspicious images as thumbnails; how they are ranked is elsewhere."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.cache.images import Images
from pipeline.reports.page import data_uri, render

MAX_IMAGES = 200
_MAX_SIDE = (
    96  # pixels of a thumbnail: 200 colour ones take at most 7 MB, and a tenth of that as most pictures compress
)


def suspects_page(facts: Mapping[str, Any], rows: NDArray[np.int64], images: Images) -> str:
    """Return an HTML page of the first MAX_IMAGES suspects.

    `facts` are what --json prints; `rows` are those of its suspects among `images`, in the same order.
    """
    pictures = images[rows[:MAX_IMAGES]]
    tiles = [
        {**suspect, "picture": data_uri(pixels, _MAX_SIDE)}
        for suspect, pixels in zip(facts["suspects"], pictures, strict=False)
    ]
    return render("suspects.html", facts=facts, tiles=tiles)
