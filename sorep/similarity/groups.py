"""The outcome of a search for equivalent structures, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sorep.errors import SimilarityError

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_EPSILON = 1e-3
"""Cosine distance between kinetic features up to which two structures count as one."""


@dataclass(frozen=True)
class Rule:
    """What makes structures equivalent: a chain of distances up to ``epsilon``.

    Attributes
    ----------
    metric : str
    epsilon : float
    n_min : int
        Number of structures, itself among them, that one needs within epsilon to pass a chain on.
    across_compositions : bool
        Compare structures of different reduced formula too.
    feature, identity : str
        Name of the feature and hash of its identity; empty for vectors that come from elsewhere.
    """

    metric: str = "cosine"
    epsilon: float = DEFAULT_EPSILON
    n_min: int = 1
    across_compositions: bool = False
    feature: str = ""
    identity: str = ""


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of equivalent structures, one row for each structure, sorted by id.

    Attributes
    ----------
    rule : Rule
    ids : (n,) array of str
    group : (n,) int array
        Numbered from 0 in the order of their first ids.
    representative : (n,) array of str
        Id of the group's medoid: the member with the least sum of distances to the others, the first id of several.
    distance : (n,) float array
        To the representative.
    nearest : (n,) array of str
        Id of the nearest other structure that was compared, empty where there is none. In a group it is a member of it
        (with N_min = 1), and the reason why this structure is; alone, it tells how far the rest is.
    distance_to_nearest : (n,) float array
        NaN where there is none.
    formula : (n,) array of str
        Reduced, in Hill order.
    confirmed : (n,) object array
        Whether pymatgen's matcher finds the structure equivalent to its representative: True, False, or None where it
        was not asked (and for representatives).
    """

    rule: Rule
    ids: NDArray[np.str_]
    group: NDArray[np.intp]
    representative: NDArray[np.str_]
    distance: NDArray[np.float64]
    nearest: NDArray[np.str_]
    distance_to_nearest: NDArray[np.float64]
    formula: NDArray[np.str_]
    confirmed: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_groups(self) -> int:
        return int(self.group.max(initial=-1)) + 1

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Number of members of each group, (n_groups,)."""
        return np.bincount(self.group, minlength=self.n_groups)

    @property
    def representatives(self) -> NDArray[np.str_]:
        """One id for each group: the unique structures, in the order of the groups."""
        return self.representative[np.unique(self.group, return_index=True)[1]]

    def members(self, group: int) -> NDArray[np.str_]:
        """Ids of one group."""
        return self.ids[self.group == group]

    def counts(self) -> dict[str, int]:
        """Numbers of structures, compositions, groups and duplicates, and of the matcher's answers if it was asked."""
        answers = [answer for answer in self.confirmed.tolist() if answer is not None]
        matcher = {"confirmed": sum(answers), "contradicted": len(answers) - sum(answers)} if answers else {}
        return {
            "structures": len(self),
            "compositions": len(np.unique(self.formula)),
            "groups": self.n_groups,
            "duplicates": len(self) - self.n_groups,
            **matcher,
        }

    def largest(self, most: int) -> list[tuple[str, str, int, float]]:
        """Representative, formula, number of members and largest distance to the representative of the largest groups.

        Groups of one member are left out.
        """
        sizes = self.sizes
        farthest = np.zeros(self.n_groups)
        np.maximum.at(farthest, self.group, self.distance)
        first = np.unique(self.group, return_index=True)[1]
        order = [g for g in np.argsort(-sizes, kind="stable")[:most].tolist() if sizes[g] > 1]
        return [
            (str(self.representative[first[g]]), str(self.formula[first[g]]), int(sizes[g]), float(farthest[g]))
            for g in order
        ]

    def of_composition(self, formula: str) -> Groups:
        """The structures of one reduced formula only, with groups numbered anew.

        Raises
        ------
        SimilarityError
            ``no-such-composition``.
        """
        rows = np.flatnonzero(self.formula == formula)
        if not len(rows):
            raise SimilarityError(
                f"no structure has the composition {formula}",
                code="no-such-composition",
                remedy="see `sorep list --structures` for what the store holds",
            )
        columns = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "rule"}
        columns["group"] = np.unique(columns["group"], return_inverse=True)[1]
        return Groups(self.rule, **columns)

    def frame(self) -> pd.DataFrame:
        """As a table with the columns id, group, representative, distance, nearest, distance_to_nearest, formula and
        confirmed, and the rule in ``attrs``."""
        import pandas as pd

        columns = {
            "id": self.ids,
            "group": self.group,
            "representative": self.representative,
            "distance": self.distance,
            "nearest": [id or None for id in self.nearest.tolist()],
            "distance_to_nearest": self.distance_to_nearest,
            "formula": self.formula,
            "confirmed": pd.array(self.confirmed, dtype="boolean"),
        }
        frame = pd.DataFrame(columns)
        frame.attrs.update(asdict(self.rule))
        return frame

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Groups:
        """Inverse of `frame`."""
        frame = frame.sort_values("id", ignore_index=True)
        confirmed = frame["confirmed"].astype("boolean").astype(object)
        return cls(
            Rule(**{str(name): value for name, value in frame.attrs.items()}),
            ids=frame["id"].to_numpy(dtype=str),
            group=frame["group"].to_numpy(dtype=np.intp),
            representative=frame["representative"].to_numpy(dtype=str),
            distance=frame["distance"].to_numpy(dtype=np.float64),
            nearest=frame["nearest"].fillna("").to_numpy(dtype=str),
            distance_to_nearest=frame["distance_to_nearest"].to_numpy(dtype=np.float64),
            formula=frame["formula"].to_numpy(dtype=str),
            confirmed=confirmed.where(confirmed.notna(), None).to_numpy(dtype=object),
        )
