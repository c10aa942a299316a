"""Which structures to calculate next, given their features, what was calculated so far, and what a calculation costs.

==============  ==================================================================================================
``random``      at random: the yardstick
``diversity``   representatives of what is not known yet, in the space of features; needs no labels
``uncertainty`` where the model is least sure (probability nearest 1/2): to make the model better
``yield``       the highest probability of being a candidate for the cost: to find candidates now (the default)
``mixture``     ``yield``, with one in ten chosen by ``uncertainty``
==============  ==================================================================================================

The last three need a model, and a model needs both classes: until there is one candidate and one that is none, they
choose by ``diversity``. Its representatives are those next to the centres of k-means clusters, in a space of quantiles:
in the densities of states themselves, or scaled to equal variance, metals fill the space and all that have a gap lie in
a corner. To choose the structures farthest from each other was measured to be worse than chance: these are odd ones.

Choosing the most probable ones is the one-step rule of active search (Garnett et al., ICML 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import ScreeningError, UsageError
from sorep.screening.models import fit_model, predicted
from sorep.screening.splits import has_both_classes

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

STRATEGIES = ("random", "diversity", "uncertainty", "yield", "mixture")
MODEL_STRATEGIES = ("uncertainty", "yield", "mixture")
DEFAULT_STRATEGY = "yield"

EXPLORATION = 0.1
"""Share of the budget that ``mixture`` spends on what the model is least sure of."""

MOST_DIMENSIONS = 20
"""Principal components in which distances are measured."""

MOST_QUANTILES = 200
"""Into which a feature is divided for that."""

_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Proposal:
    """Structures to calculate, the first one first.

    Attributes
    ----------
    rows : (k,) int array
    reasons : (k,) array of str
        The rule that chose each.
    scores : (n,) float array or None
        What the model says of every structure, known ones included; None where there was no model.
    """

    rows: Rows
    reasons: NDArray[np.str_]
    scores: Array | None


@dataclass(frozen=True, eq=False)
class Planner:
    """Proposes the next calculations.

    Attributes
    ----------
    values : (n, n_features) float array
        Of all structures, known or not.
    costs : (n,) float array
        Of one calculation of each, in any unit, positive.
    strategy : str
        One of `STRATEGIES`.
    build : callable
        Called with ``seed=``; gives an estimator that is not yet fitted, as `sorep.screening.models.build_model` does.
    seed : int

    Raises
    ------
    UsageError
        ``unknown-strategy``.
    ScreeningError
        ``bad-cost``.
    """

    values: Array
    costs: Array
    strategy: str
    build: Callable[..., Any]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UsageError(
                f"unknown strategy {self.strategy!r}",
                code="unknown-strategy",
                remedy=f"choose from {', '.join(STRATEGIES)}",
            )
        if self.costs.shape != self.values.shape[:1] or not (np.isfinite(self.costs) & (self.costs > 0)).all():
            raise ScreeningError(
                f"{self.costs.shape} costs for {len(self.values)} structures, "
                f"{np.count_nonzero(~(self.costs > 0))} of them not positive",
                code="bad-cost",
                remedy="give every structure a cost above zero",
            )

    def propose(self, known: Rows, labels: NDArray[np.bool_], budget: float) -> Proposal:
        """Choose structures that are not known for as much as the budget pays.

        Parameters
        ----------
        known : (m,) int array
            Rows that were calculated.
        labels : (m,) bool array
            Whether these are candidates.
        budget : float
            In the unit of the costs. What does not fit into what is left of it is passed over.

        Returns
        -------
        Proposal
            Empty where nothing is left that the budget pays.
        """
        rng = np.random.default_rng([self.seed, len(known)])
        left = np.setdiff1d(np.arange(len(self.values)), known)
        needs_model = self.strategy in MODEL_STRATEGIES
        scores = None
        if needs_model and len(left) and has_both_classes(labels):
            model = fit_model(self.build(seed=int(rng.integers(2**31))), self.values[known], labels)
            scores = predicted(model, self.values)
        purse = _Purse(self.costs, budget)
        if self.strategy == "random":
            purse.buy(rng.permutation(left), "random")
        elif scores is None:
            if len(left):
                purse.buy(self._representatives(known, left, budget, rng), "diversity")
        else:
            unsure = left[np.argsort(np.abs(scores[left] - 0.5), kind="stable")]
            likely = left[np.argsort(-scores[left] / self.costs[left], kind="stable")]
            share = {"uncertainty": 1.0, "mixture": EXPLORATION, "yield": 0.0}[self.strategy]
            purse.buy(unsure, "uncertainty", share * budget)
            purse.buy(likely, "yield")
        return purse.proposal(scores)

    @cached_property
    def _space(self) -> Array:
        """Positions of the structures: leading principal components of the quantiles of each feature."""
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import QuantileTransformer

        quantiles = QuantileTransformer(n_quantiles=min(MOST_QUANTILES, len(self.values))).fit_transform(self.values)
        return PCA(min(MOST_DIMENSIONS, *quantiles.shape), svd_solver="full").fit_transform(quantiles)

    @cached_property
    def _n_different(self) -> int:
        return len(np.unique(self.values, axis=0))

    def _representatives(self, known: Rows, left: Rows, budget: float, rng: np.random.Generator) -> Iterator[int]:
        """Structures next to the centres of clusters that hold no known one, large clusters first; then at random.

        There is a cluster for each known structure and for each that the budget pays for on average, so that some must
        be free of known ones.
        """
        from sklearn.cluster import KMeans

        space = self._space
        number = len(known) + max(1, int(budget / self.costs[left].mean()))
        number = min(number, self._n_different)
        clusters = KMeans(number, random_state=int(rng.integers(2**31)))
        cluster_of = clusters.fit_predict(space)
        sizes = np.bincount(cluster_of, minlength=number)
        sizes[cluster_of[known]] = 0
        chosen = []
        for cluster in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]:
            members = np.flatnonzero(cluster_of == cluster)
            distance = np.square(space[members] - clusters.cluster_centers_[cluster]).sum(axis=1)
            chosen.append(int(members[distance.argmin()]))
        yield from chosen
        yield from rng.permutation(np.setdiff1d(left, chosen)).tolist()


class _Purse:
    """Buys rows, each once, in the order they are offered, as long as they can be paid."""

    def __init__(self, costs: Array, budget: float) -> None:
        self.rows: list[int] = []
        self.reasons: list[str] = []
        self._costs = costs
        self._cheapest = costs.min(initial=np.inf)
        self._left = budget * (1 + _ROUNDING)
        self._taken: set[int] = set()

    def buy(self, offers: Any, reason: str, at_most: float = np.inf) -> None:
        """Buy for ``at_most``, or for all that is left."""
        limit = min(at_most * (1 + _ROUNDING), self._left)
        kept = self._left - limit
        for row in offers:
            if self._left - kept < self._cheapest:
                break
            if row not in self._taken and self._costs[row] <= self._left - kept:
                self._taken.add(int(row))
                self._left -= self._costs[row]
                self.rows.append(int(row))
                self.reasons.append(reason)

    def proposal(self, scores: Array | None) -> Proposal:
        """What was bought, explorations last."""
        rows, reasons = np.array(self.rows, dtype=np.intp), np.array(self.reasons, dtype=str)
        order = np.argsort(reasons == "uncertainty", kind="stable")
        return Proposal(rows[order], reasons[order], scores)
