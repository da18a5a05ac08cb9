"""How the map of the last stage becomes a row of numbers; the table holds what a search space may name."""

from collections.abc import Callable

from pipeline.parts.layer import Layer

Head = Callable[[], list[Layer]]


def _generalised_mean() -> list[Layer]:
    """Return the cube root of the mean of cubes, between mean and maximum (Radenovic et al. 2018, there learned)."""
    return [
        Layer("relu", "head_relu"),
        Layer("multiply", "head_cubes", sources=("head_relu",) * 3),
        Layer("global_avg_pool", "head_mean"),
        Layer("cube_root", "head"),
    ]


HEADS: dict[str, Head] = {
    "gap": lambda: [Layer("global_avg_pool", "head")],
    "gmp": lambda: [Layer("global_max_pool", "head")],
    "gem": _generalised_mean,
    "flatten": lambda: [Layer("flatten", "head")],
}
