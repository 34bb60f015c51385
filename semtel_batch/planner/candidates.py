"""Which columns can stand in the cheapest mix: prices for the limits, found without solving for the columns.

A program of many columns has few limits, and once those have prices every block's best column is a plain minimum. So
the prices come first, by cutting planes on the dual (J. E. Kelley, J. SIAM 8, 1960), one pass over the columns each;
then only the columns that are nearly best at them need be solved for. Whether one was left out that the optimum needs
is seen by its reduced cost afterwards (`mix.solve`): what is guessed here decides how long it takes, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MOST_CUTS = 60
_CLOSE = 1e-4  # of the bound: nearer prices choose the same columns
_STEP = 0.6  # of the way from the best prices so far to those of the model: full steps swing from side to side
_DEAREST = 10.0  # times the dearest column for all that a limit lets through: a price above it isn't looked for


@dataclass(frozen=True, slots=True)
class Nest:
    """Columns in blocks, blocks in partitions, partitions in strata; each group by where it starts in `order`."""

    order: Ints  # columns, those of a block together
    blocks: Ints
    partitions: Ints  # by block
    strata: Ints  # by partition
    sizes: Floats  # conversations of each stratum

    @classmethod
    def of(cls, keys: tuple[Ints, Ints, Ints], sizes: Floats) -> Nest:
        """Group columns by (stratum, partition, block)."""
        stratum, partition, block = keys
        order = np.lexsort((block, partition, stratum))
        blocks = _starts(stratum[order], partition[order], block[order])
        of_block = order[blocks]
        partitions = _starts(stratum[of_block], partition[of_block])
        of_partition = of_block[partitions]
        strata = _starts(stratum[of_partition])
        return cls(order, blocks, partitions, strata, sizes[stratum[of_partition[strata]]])

    def cheapest(self, usd: Floats) -> tuple[Floats, Ints, Floats]:
        """Serve every stratum by its cheapest partition: (each stratum's cost, the columns used, whom each serves)."""
        least = np.minimum.reduceat(usd, self.blocks)
        sums = np.add.reduceat(least, self.partitions)
        best = np.minimum.reduceat(sums, self.strata)
        of_partition, of_block = _numbers(self.partitions, len(self.blocks)), _numbers(self.blocks, len(usd))
        of_stratum = _numbers(self.strata, len(self.partitions))
        chosen = np.zeros(len(self.partitions), dtype=bool)
        chosen[_first(sums == best[of_stratum], of_stratum)] = True
        used = _first(usd == least[of_block], of_block)[chosen[of_partition]]
        return best, used, self.sizes[of_stratum[of_partition[of_block[used]]]]

    def rank(self, usd: Floats) -> Ints:
        """The place of each column in its block by cost, from 0; `usd` and the answer in the columns' own order."""
        block = np.empty(len(usd), dtype=np.int64)
        block[self.order] = _numbers(self.blocks, len(usd))
        order = np.lexsort((usd, block))
        places = np.empty(len(usd), dtype=np.int64)
        places[order] = np.arange(len(usd)) - self.blocks[block[order]]
        return places


def limit_prices(nest: Nest, usd: Floats, weight: Floats, at_most: Floats) -> Floats:
    """Prices of limits at which the cheapest mix is nearly had by each block's minimum: of the dual's maximum.

    `weight`: (limits, columns), `at_most`: (limits,). Where nothing keeps the limits they are as high as they may be.
    """
    from scipy.optimize import linprog

    usd, weight = usd[nest.order], weight[:, nest.order]
    top = _DEAREST * usd.max() * nest.sizes.sum() / np.maximum(at_most, 1e-12)
    prices = best_prices = np.zeros(len(at_most))
    best, right, slopes = -np.inf, [], []
    for _ in range(_MOST_CUTS):
        least, used, served = nest.cheapest(usd + prices @ weight)
        bound = float(nest.sizes @ least - prices @ at_most)
        if bound > best:
            best, best_prices = bound, prices
        right.append(float(usd[used] @ served))
        slopes.append(np.concatenate([[1.0], at_most - weight[:, used] @ served]))
        model = linprog(
            np.concatenate([[-1.0], np.zeros(len(at_most))]),
            A_ub=np.array(slopes),
            b_ub=np.array(right),
            bounds=[(None, None), *((0.0, one) for one in top.tolist())],
            method="highs-ds",
        )
        if model.status or -model.fun - best <= _CLOSE * abs(best):
            break
        prices = _STEP * model.x[1:] + (1 - _STEP) * best_prices
    return best_prices


def _starts(*keys: Ints) -> Ints:
    """Where a new group begins in sorted keys."""
    changed = np.any([np.diff(key) != 0 for key in keys], axis=0)
    return np.concatenate([[0], np.flatnonzero(changed) + 1]).astype(np.int64)


def _numbers(starts: Ints, n: int) -> Ints:
    """The group of each of n members."""
    return np.repeat(np.arange(len(starts)), np.diff(np.append(starts, n)))


def _first(hit: npt.NDArray[np.bool_], group: Ints) -> Ints:
    """The first hit of every group; each has one."""
    at = np.flatnonzero(hit)
    return np.asarray(at[np.concatenate([[True], np.diff(group[at]) != 0])], dtype=np.int64)
