"""What a network costs, by hand; that Keras agrees is in test_build.py."""

import pytest

from pipeline.models.cost import ImpossibleNetwork
from pipeline.models.measure import dense_params, measure
from pipeline.models.plan import plan_layers, stage_filters
from pipeline.search.timing.budget import estimate_seconds

SMALL = {"depth": 2, "filters": 8, "filters_growth": 2.0, "norm": "none", "dropout": 0.0}


def test_cost_of_a_network_that_can_be_counted_by_hand():
    cost = measure(SMALL, (8, 8, 1), 10)
    # conv 3x3x1x8 + 8, pool, conv 3x3x8x16 + 16, global average, dense 16x10 + 10
    assert cost.num_params == 80 + 1168 + 170
    assert cost.flops == 2 * (64 * 72 + 16 * 1152 + 160)
    assert dict(cost.shapes)["stage1_pool"] == (4, 4, 8)
    assert cost.mflops == 0.046


def test_a_network_without_shared_weights_can_be_counted_by_hand():
    # 64 pixels to 8 maps of 64, 8 maps of 16 to 16 maps of 16, with biases; then the logits as they are
    assert dense_params(SMALL, (8, 8, 1), 10) == 65 * 512 + 129 * 256 + 170
    separable = {"depth": 1, "filters": 8, "block": "separable", "norm": "none", "dropout": 0.0}
    stem, depthwise, pointwise = 17 * 128, 128 * 128, 129 * 128
    assert dense_params(separable, (4, 4, 1), 10) == stem + depthwise + pointwise + 90
    assert measure(separable, (4, 4, 1), 10).depthwise_flops == 2 * 16 * 8 * 9
    assert measure(SMALL, (8, 8, 1), 10).depthwise_flops == 0


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_a_network_that_pools_the_image_away_is_refused_by_name(pooling):
    with pytest.raises(ImpossibleNetwork, match="stage4_pool halves a map of 1 x 1"):
        measure({"depth": 5, "pooling": pooling}, (8, 8, 1), 10)


def test_a_strided_convolution_always_leaves_a_pixel():
    assert dict(measure({"depth": 5, "pooling": "stride"}, (8, 8, 1), 10).shapes)["stage5_conv1"][:2] == (1, 1)


def test_widths_grow_by_the_factor_in_multiples_of_eight():
    assert [stage_filters(16, 1.5, stage) for stage in range(4)] == [16, 24, 32, 56]
    assert stage_filters(1, 1.0, 0) == 8


def test_a_bias_is_only_where_no_normalisation_follows():
    kinds = {layer.kind: layer.use_bias for layer in plan_layers({"norm": "batch"}, 10)}
    assert kinds["conv"] is False
    assert {layer.kind: layer.use_bias for layer in plan_layers({"norm": "none"}, 10)}["conv"] is True


def test_twice_the_images_cost_twice_the_seconds():
    cost = measure(SMALL, (28, 28, 1), 10)
    one, two = (estimate_seconds(cost, SMALL, samples, 2) for samples in (10_000, 20_000))
    assert two == pytest.approx(2 * one)
