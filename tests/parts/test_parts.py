"""The parts of networks: what each kind consists of, and that a new one is a function and a line in a table."""

import pytest

from pipeline.models.cost import ImpossibleNetwork
from pipeline.models.measure import measure
from pipeline.models.plan import plan_layers
from pipeline.parts import BLOCKS, HEADS, NORMS, POOLINGS, Layer
from pipeline.parts.layer import scaled

ONE_STAGE = {"depth": 1, "filters": 16, "dropout": 0.0, "norm": "none"}
LOGITS = 17 * 10


def num_params(**params):
    return measure({**ONE_STAGE, **params}, (8, 8, 3), 10).num_params


def test_blocks_have_the_parameters_that_their_papers_say():
    stem = 9 * 3 * 16 + 16
    assert num_params(block="plain") == stem + LOGITS
    assert num_params(block="residual") == stem + 2 * (9 * 16 * 16 + 16) + LOGITS
    assert num_params(block="separable") == stem + 9 * 16 + (16 * 16 + 16) + LOGITS
    mobile = (16 * 64 + 64) + (9 * 64 + 64) + (64 * 16 + 16)
    assert num_params(block="mobile") == stem + mobile + LOGITS


def test_squeeze_excite_adds_a_gate_of_two_small_convolutions():
    gate = (16 * 8 + 8) + (8 * 16 + 16)  # 8 is the narrowest
    assert num_params(squeeze_excite=True) - num_params() == gate


def test_a_residual_block_that_grows_has_a_convolution_around_it():
    layers = {layer.name: layer for layer in plan_layers({"block": "residual", "depth": 2, "filters": 8}, 10)}
    assert layers["stage1_conv1_add"].sources == ("stage1_conv1b_norm", "stem_relu")
    assert (layers["stage2_conv1_around"].kernel, layers["stage2_conv1_around"].sources) == (1, ("stage1_pool",))
    assert layers["stage2_conv1_add"].sources == ("stage2_conv1b_norm", "stage2_conv1_around_norm")


def test_a_mobile_block_that_grows_has_no_connection_around_it():
    names = [layer.name for layer in plan_layers({"block": "mobile", "depth": 2, "filters": 8}, 10)]
    assert "stage1_conv1_add" in names
    assert "stage2_conv1_add" not in names


@pytest.mark.parametrize("norm", NORMS)
def test_a_bias_is_only_where_no_normalisation_follows(norm):
    layers = plan_layers({"block": "mobile", "norm": norm}, 10)
    assert {layer.use_bias for layer in layers if layer.kind in ("conv", "depthwise")} == {norm == "none"}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_halves_the_map(pooling):
    shapes = dict(measure({"depth": 2, "filters": 8, "pooling": pooling}, (8, 6, 1), 10).shapes)
    assert shapes["stage2_conv1"] == (4, 3, 16)


def test_a_pooling_after_the_first_block_halves_each_stage_in_it():
    two = {"depth": 2, "filters": 8, "convs_per_stage": 2}
    sides = {}
    for place in ("last", "first"):
        layers = measure({**two, "pool_after": place}, (8, 8, 1), 10).shapes
        sides[place] = [shape[0] for name, shape in layers if name.startswith("stage") and name[-1].isdigit()]
    assert sides == {"last": [8, 8, 4, 4], "first": [8, 4, 4, 2]}  # of the convolutions


def test_a_blurred_pooling_of_one_pixel_is_refused_by_name():
    with pytest.raises(ImpossibleNetwork, match="stage4_pool halves a map of 1 x 1"):
        measure({"depth": 5, "pooling": "blur"}, (8, 8, 1), 10)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_ends_in_a_row_of_numbers(head):
    shapes = measure({**ONE_STAGE, "head": head}, (4, 4, 1), 10).shapes
    assert shapes[-2][1] == ((256,) if head == "flatten" else (16,))


def test_a_resolution_scales_the_image_first():
    shapes = measure({**ONE_STAGE, "resolution": 0.75}, (32, 20, 3), 10).shapes
    assert shapes[0] == ("resize", (24, 15, 3))
    assert scaled(1, 0.1) == 1


def test_a_new_block_and_a_new_pooling_are_a_function_and_a_line_each(monkeypatch):
    def twice(name, width, filters, style, source):
        return BLOCKS["plain"](name, width, filters, style, source) + BLOCKS["plain"](
            f"{name}_again", filters, filters, style, ""
        )

    monkeypatch.setitem(BLOCKS, "twice", twice)
    monkeypatch.setitem(POOLINGS, "thirds", lambda name, filters, style: [Layer("avg_pool", name, kernel=3, stride=3)])
    shapes = dict(measure({"depth": 2, "filters": 8, "block": "twice", "pooling": "thirds"}, (9, 9, 1), 10).shapes)
    assert shapes["stage1_conv1_again"] == (9, 9, 8)
    assert shapes["stage2_conv1"] == (3, 3, 16)
