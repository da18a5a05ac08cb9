"""The smallest and the largest network of a search space, by arithmetic."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

from pipeline.models.cost import Cost, ImpossibleNetwork
from pipeline.models.measure import measure
from pipeline.records import Params
from pipeline.space import Param, SearchSpace, is_active
from pipeline.space.params import Value, active_defaults

Size = tuple[int, int]


def extremes(
    space: SearchSpace, image_shape: tuple[int, int, int], num_classes: int
) -> tuple[tuple[Params, Cost], tuple[Params, Cost]] | None:
    """Return the smallest and the largest network of a space for images (height, width, channels), with their cost.

    From the defaults (or the first configuration of the portfolio that fits the images), one hyperparameter after the
    other, with those that exist only with its value, goes to the end or choice that gives fewer (more) parameters, then
    fewer (more) FLOPs, until none does. So they are the true ones where a hyperparameter makes networks larger or
    smaller whatever the others are, as in the installed spaces. None if no start fits the images.
    """

    def size_of(params: Params, sign: int) -> Size | None:
        try:
            cost = measure(params, image_shape, num_classes)
        except ImpossibleNetwork:
            return None
        return sign * cost.num_params, sign * cost.flops

    starts = [space.defaults(), *(params for _, params in space.portfolio)]
    start = next((params for params in starts if size_of(params, 1)), None)
    if start is None:
        return None
    smallest, largest = (_climb(space, start, partial(size_of, sign=sign)) for sign in (1, -1))
    return (smallest, measure(smallest, image_shape, num_classes)), (
        largest,
        measure(largest, image_shape, num_classes),
    )


def _climb(
    space: SearchSpace, params: Params, size_of: Callable[[Params], Size | None]
) -> Params:  # fmt: skip
    """Return the configuration of the least size that changes of one hyperparameter at a time lead to."""
    least = size_of(params)
    while True:
        sizes = ((size_of(step), step) for step in _neighbours(space, params))
        better = [(size, step) for size, step in sizes if size is not None and least is not None and size < least]
        if not better:
            return params
        least, params = min(better, key=lambda pair: pair[0])


def _neighbours(space: SearchSpace, params: Params) -> Iterator[Params]:
    """Yield the configurations that differ in one hyperparameter, at an end of its range or another choice.

    Where that brings others into existence, they are at each of their ends.
    """
    for param in space.params:
        if not is_active(param, params):
            continue
        for value in ends(param):
            changed = {**params, param.name: value}
            brought = [each for each in space.params if each.name not in params and is_active(each, changed)]
            for values in product(*map(ends, brought)):
                names = [each.name for each in brought]
                step = active_defaults(space.params, {**changed, **dict(zip(names, values, strict=True))})
                if step != params and space.contains(step):
                    yield step


def ends(param: Param) -> Sequence[Value]:
    """Return the ends of a range, or all choices."""
    if param.min_value is None or param.max_value is None:
        return param.values
    grid = param.grid()
    return (grid[0], grid[-1]) if grid is not None else (param.min_value, param.max_value)
