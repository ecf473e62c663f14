"""Friends belong to the files that they are called after, or in their order."""

import pytest

from rootdata.errors import FileError
from rootdata.io.friends.match import befriended
from rootdata.location import Location


@pytest.mark.parametrize(
    ("files", "friends", "owners"),
    [
        (["a/x_1.root", "a/x_12.root"], ["x_12_Friend.root", "x_1_Friend.root"], [[1], [0]]),
        (["x_1.root", "x_1_2.root"], ["x_1_2_Friend.root", "x_1_Friend.root"], [[1], [0]]),
        (["x.root", "y.root"], ["scores_y.parquet", "scores_x.parquet"], [[1], [0]]),
        (["x.root", "y.root"], ["p_x.root", "p_y.root", "q_y.root", "q_x.root"], [[0, 3], [1, 2]]),
        (["x.root", "y.root"], ["1.root", "2.root"], [[0], [1]]),
        (["x.root", "y.root"], ["1.root", "2.root", "3.root", "4.root"], [[0, 2], [1, 3]]),
        (["a/0.root", "b/0.root"], ["c/0.root", "d/0.root"], [[0], [1]]),
        (["x.root"], ["anything.root", "else.root"], [[0, 1]]),
        (["https://h/x.root?a=1", "root://h//y.root"], ["y.root", "x.root"], [[1], [0]]),
        (["x.root.1", "y.root.1"], ["y_f.root", "x_f.root"], [[1], [0]]),
    ],
)
def test_friends_belong_to_the_file_they_are_called_after_or_to_that_of_their_place(files, friends, owners):
    found = befriended([Location(f) for f in files], [Location(f) for f in friends], alias="", where="w")
    assert [[friends.index(f.path) for f in location.friends] for location in found] == owners


@pytest.mark.parametrize(
    ("friends", "alias", "words"),
    [
        (["1.root"], "", "1 friends for 2 files"),
        (["1.root", "2.root", "3.root"], "", "3 friends for 2 files"),
        (["x_f.root", "z.root"], "", "z.root is called after none of the 2 files"),
        (["x_f.root", "x_g.root"], "", "y.root has 0 friends where 2 would be right"),
        (["x_f.root", "x_g.root", "y_f.root", "y_g.root"], "s", "x.root has 2 friends where 1 would be right"),
    ],
)
def test_friends_that_belong_nowhere_are_refused(friends, alias, words):
    files = [Location("x.root"), Location("y.root")]
    with pytest.raises(FileError, match=words):
        befriended(files, [Location(f) for f in friends], alias=alias, where="w")
