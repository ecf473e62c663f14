"""Lists of lists are read under the name of what is made of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.expressions.grammar import parse
from rootdata.expressions.nested import READ_AS, name_of, split_name


@given(st.sampled_from(READ_AS), st.text(min_size=1, alphabet="ab.()`[]_/"))
def test_a_name_is_taken_apart_as_it_was_made(function, branch):
    assert split_name(name_of(function, branch)) == (function, branch)
    assert split_name(branch) is None or branch.startswith(READ_AS)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("sum(flatten(vv))", {"flatten(vv)"}),
        ("flatten(Jet.links) > 0", {"flatten(Jet.links)"}),
        ("num(`odd {name}`)", {"num(odd {name})"}),
        ("count(x) + max(num(x))", {"x", "num(x)"}),
        ("max(num(x)) + count(x)", {"x", "num(x)"}),
        ("`num(x)`", {"num(x)"}),
        ("num + flatten", {"num", "flatten"}),
    ],
)
def test_expressions_need_what_is_made_and_not_the_branch(text, names):
    assert parse(text).names == names


def test_the_value_is_the_column_of_that_name():
    column = np.array([[1, 2], [3, 4]])
    assert parse("sum(flatten(vv))").evaluate({"flatten(vv)": column}, num_events=2).tolist() == [3, 7]
