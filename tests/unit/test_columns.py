"""Features reach a model in one form, whatever frame they come in."""

import numpy as np
import pandas as pd
import pytest

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.columns import Columns

RNG = np.random.default_rng(0)
NUMBERS = pd.DataFrame(RNG.normal(size=(40, 3)), columns=["a", "b", "c"])
COLUMNS = Columns.of(NUMBERS, ["a", "b", "c"])


@pytest.mark.parametrize(
    "given",
    [
        NUMBERS,
        NUMBERS[["c", "a", "b"]],
        NUMBERS.assign(more="text"),
        NUMBERS.iloc[7:31],
        NUMBERS.iloc[::3],
        NUMBERS.sample(frac=1, random_state=0),
        NUMBERS.mask(NUMBERS > 1),
        NUMBERS.astype("float32"),
        NUMBERS.assign(a=NUMBERS["a"] > 0, b=NUMBERS["b"].round().astype("int64"), c=NUMBERS["c"].astype("float32")),
        NUMBERS.assign(a=pd.array([1, None] * 20, dtype="Int64")),
        NUMBERS.assign(b=pd.array([0.5, None] * 20, dtype="Float64"), c=pd.array([True, None] * 20, dtype="boolean")),
        NUMBERS.head(0),
    ],
    ids=lambda frame: f"{len(frame)} {' '.join(map(str, frame.dtypes))}",
)
def test_numbers_are_doubles_column_by_column_in_memory(given):
    before = given.copy()
    frame = COLUMNS.frame(given)
    expected = {name: [float(x) if x is not pd.NA else np.nan for x in given[name]] for name in "abc"}
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected, columns=["a", "b", "c"], dtype="float64"))
    assert frame.to_numpy().flags.f_contiguous  # libraries that use BLAS may round otherwise for another order
    pd.testing.assert_frame_equal(given, before)


def test_a_model_may_write_to_what_it_is_given():
    given = NUMBERS.copy()
    frame = COLUMNS.frame(given)
    frame.loc[0, "a"] = 7.0
    frame["b"] = frame["b"].fillna(0)
    assert frame.loc[0, "a"] == 7.0
    pd.testing.assert_frame_equal(given, NUMBERS)


def test_text_stays_text_beside_numbers():
    columns = Columns.of(NUMBERS.assign(b="x"), ["b", "a"])
    frame = columns.frame(NUMBERS.assign(b=pd.array(["x", None] * 20, dtype="string")))
    assert list(frame) == ["b", "a"]
    assert frame["b"][::2].eq("x").all()
    assert frame["b"][1::2].isna().all()
    assert frame["a"].to_numpy().tolist() == NUMBERS["a"].tolist()


@pytest.mark.parametrize(
    ("given", "said"),
    [(NUMBERS[["a", "c"]], "needs the features b"), (NUMBERS.assign(b="text"), "feature 'b' is numeric in the")],
)
def test_what_a_model_cannot_take_is_named(given, said):
    with pytest.raises(ModelError, match=said):
        COLUMNS.frame(given)
