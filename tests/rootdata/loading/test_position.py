import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import ResumeError
from rootdata.loading.position import VERSION, Cursor, cursor_of, state_of

primitives = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
identities = st.dictionaries(st.text(min_size=1, max_size=4), primitives, min_size=1, max_size=4)


@given(st.integers(1, 9), st.integers(0, 40))
def test_a_cursor_counts_through_epochs(length, steps):
    cursor = Cursor()
    for _ in range(steps):
        cursor = cursor.after(length)
    assert (cursor.epoch, cursor.batch) == divmod(steps, length)


def test_a_limit_below_the_place_ends_the_epoch():
    assert Cursor(2, 7).after(5) == Cursor(3, 0)


@given(st.integers(0, 99), st.integers(0, 99), identities)
def test_a_state_gives_its_place_back(epoch, batch, identity):
    assert cursor_of(state_of(Cursor(epoch, batch), identity), identity) == Cursor(epoch, batch)


@given(identities, identities)
def test_a_state_is_taken_where_and_only_where_the_events_are_the_same(saved, now):
    state = state_of(Cursor(1, 2), saved)
    if saved == now:
        assert cursor_of(state, now) == Cursor(1, 2)
    else:
        # None and an absent key are one: an option that came later has its default
        same = {k: v for k, v in saved.items() if v is not None} == {k: v for k, v in now.items() if v is not None}
        if not same:
            with pytest.raises(ResumeError, match="other events or another order"):
                cursor_of(state, now)


@pytest.mark.parametrize("state", [{"epoch": 3}, {"version": VERSION + 1, "epoch": 1, "batch": 0, "identity": {}}])
def test_a_state_of_another_version_is_refused(state):
    with pytest.raises(ResumeError, match="version"):
        cursor_of(state, {})


def test_a_difference_in_a_list_names_what_came_or_went():
    state = state_of(Cursor(), {"files": ["a", "b", "c"]})
    with pytest.raises(ResumeError, match=r"files had 3, now 2 \(for one: b\)"):
        cursor_of(state, {"files": ["a", "c"]})
    with pytest.raises(ResumeError, match=r"files\[1\] was 'b', now 'x'"):
        cursor_of(state, {"files": ["a", "x", "c"]})
