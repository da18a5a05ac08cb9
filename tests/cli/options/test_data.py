"""Sizes and colours as they are typed."""

import click
import pytest
from PIL import Image

from pipeline.cli.options.data import data_options
from pipeline.cli.options.types import Colour, Host, Size
from pipeline.data.cache.folder import LIMIT_BYTES
from pipeline.data.decoding.decode import PILLOW_MEGAPIXELS


@pytest.mark.parametrize(
    ("text", "number"), [("500MB", 500_000_000), ("20gb", 20 * 10**9), ("1.5GiB", 3 << 29), ("2 TB", 2 * 10**12)]
)
def test_sizes(text, number):
    assert Size().convert(text, None, None) == number


@pytest.mark.parametrize("text", ["", "20", "GB", "-1GB", "1.5.2GB", "20GBs", "9" * 400 + "GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(click.BadParameter, match="such as 500MB"):
        Size().convert(text, None, None)


def test_colours_become_lower_case_and_others_are_refused():
    assert Colour().convert("#FFaa00", None, None) == "#ffaa00"
    with pytest.raises(click.BadParameter, match="write #rrggbb"):
        Colour().convert("#fff", None, None)


def test_no_more_megapixels_can_be_allowed_than_pillow_reads():
    command = click.command()(data_options(lambda **options: None))
    highest = next(option for option in command.params if option.name == "max_megapixels").type.max
    assert highest == PILLOW_MEGAPIXELS == 2 * Image.MAX_IMAGE_PIXELS // 10**6


def test_the_cache_has_one_limit_unless_another_is_given():
    command = click.command()(data_options(lambda **options: None))
    assert command.make_context("search", []).params["cache_limit"] == LIMIT_BYTES


@pytest.mark.parametrize(
    ("text", "host"), [("images.example.org", "images.example.org"), ("[::1]", "::1"), ("fe80::1", "fe80::1")]
)
def test_hosts(text, host):
    assert Host().convert(text, None, None) == host


@pytest.mark.parametrize("text", ["127.0.0.1:8773", "http://host", "host/path", "", "[::1]:80", "a b"])
def test_what_is_no_host_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not a host; write a name such as"):
        Host().convert(text, None, None)
