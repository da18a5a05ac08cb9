"""Paths hold texts as a list does."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.readers.paths import Paths

TEXTS = st.lists(st.text(st.characters(exclude_categories=[]), max_size=6))


@given(texts=TEXTS, place=st.integers(-3, 3), step=st.sampled_from([-1, 1, 2]))
def test_paths_are_read_as_from_a_list(texts, place, step):
    paths = Paths(texts)
    assert (len(paths), list(paths), paths[place::step]) == (len(texts), texts, texts[place::step])
    assert [paths[index] for index in range(-len(texts), len(texts))] == texts * 2


@given(texts=TEXTS, others=TEXTS)
def test_paths_are_equal_to_the_same_texts_only(texts, others):
    assert Paths(texts) == texts
    assert (Paths(texts) == Paths(others)) == (texts == others)


def test_many_short_paths_take_their_bytes_and_eight_more():
    paths = Paths(f"{number:06d}" for number in range(100_000))
    assert paths[-1] == "099999"
    assert len(paths.content) + paths.ends.itemsize * len(paths.ends) <= 1_400_008
