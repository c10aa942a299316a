"""How large a spectrum is, from the composition: what SumNorm and MaxNorm take away and a prediction has to put back.

    log s = w . x + b

with x the element fractions; ridge regression, its strength chosen by leave-one-out on the training part. The true size
belongs to the target, so a prediction that uses it ("oracle") is no prediction of the spectrum itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sorep.errors import Mat2SpecError
from sorep.tables import read_numbers

_STRENGTHS = np.logspace(-4, 2, 13)


@dataclass(frozen=True, eq=False)
class SizeModel:
    """A fitted ridge regression of the logarithm.

    Attributes
    ----------
    weights : (103,) float array
    bias : float
    """

    weights: NDArray[np.float64]
    bias: float

    @classmethod
    def fit(cls, compositions: NDArray[np.float64], sizes: NDArray[np.float64]) -> Self:
        """From element fractions (n, 103) and positive sizes (n,) of the training part.

        Raises
        ------
        Mat2SpecError
            ``empty-spectrum`` where a size is not positive.
        """
        from sklearn.linear_model import RidgeCV

        if not (sizes > 0).all():
            raise Mat2SpecError(
                f"{(~(sizes > 0)).sum()} spectra are zero throughout",
                code="empty-spectrum",
                remedy="leave them out, or use the scaling standard",
            )
        model = RidgeCV(_STRENGTHS).fit(compositions, np.log(sizes))
        return cls(np.asarray(model.coef_), float(model.intercept_))

    def predict(self, compositions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sizes of crystals with these element fractions, (n,)."""
        return np.exp(compositions @ self.weights + self.bias)

    def state(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"weights": self.weights.tolist(), "bias": self.bias}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(np.array(state["weights"]), state["bias"])


def read_sizes(path: str | Path, column: str, ids: NDArray[np.str_], id_column: str = "id") -> NDArray[np.float64]:
    """Sizes from a table, e.g. of another model, in the order of ``ids``.

    Raises
    ------
    TableError
        Those of `sorep.tables.read_numbers`.
    Mat2SpecError
        ``missing-size`` where an id is not there, or its size is not positive.
    """
    found = read_numbers(path, column, id_column).reindex(ids)
    wrong = found.index[~(found > 0).to_numpy()]
    if len(wrong):
        raise Mat2SpecError(
            f"{path}: no positive {column} for {len(wrong)} of {len(ids)} crystals, the first of them {wrong[0]!r}",
            code="missing-size",
            remedy="complete the table, or leave it out to use the model's own",
        )
    return found.to_numpy(dtype=float)
