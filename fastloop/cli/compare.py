"""The statistics of all benchmarks: how figures of loops are compared.

Each round has one figure of each loop, taken one after the other.  The ratio
of the two is looked at as a logarithm: its mean over the rounds, with
Student's t interval, is the ratio and its interval.  What the machine does to
a whole round cancels out.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

#: Rounds from which on an insignificant difference counts as none.
ENOUGH_ROUNDS = 5
_LEAST = math.log(1.01)
_STEPS = 20_000
#: The logarithm of what is too large to matter; a float has little more.
_FAR = 700.0


@dataclass
class Comparison:
    """How many times as good; sure is False if it may be chance.

    low_95 and high_95 are the interval which a benchmark's tables show,
    low_999 and high_999 (99.9 %) the one by which sure is judged.
    """

    ratio: float
    low_95: float
    high_95: float
    sure: bool
    low_999: float
    high_999: float

    def is_within(self, least: float) -> bool:
        """Say whether the interval lies between least and its inverse."""
        return least <= self.low_95 and self.high_95 <= 1 / least

    @property
    def bounds(self) -> str:
        """The ends of the 99.9 % interval; few rounds have them far apart."""
        high = self.high_999
        most = "over 1000" if high > 1000 else f"{high:.2f}"
        return f"{self.low_999:.2f} to {most}"

    @property
    def doubt(self) -> str:
        """Why it is not sure, in words."""
        found = f"{self.ratio:.2f} times, 99.9 % interval {self.bounds}"
        if self.low_999 <= 1 <= self.high_999:
            return found
        return f"{found}; the difference is below 1 %"

    def verdict(self, own: str, did: str, base: str) -> str:
        """Say what own did, such as "is as fast", if it is significant.

        did has "{}" in the place of "2.00 times".
        """
        if not self.sure:
            none = "no significant difference"
            return f"{own} and {base}: {none} ({self.doubt})"
        done = did.format(f"{self.ratio:.2f} times")
        slower = " and so is slower" if self.ratio < 1 else ""
        return f"{own} {done} {base}{slower} (99.9 % interval {self.bounds})"


def mean(figures: Sequence[float]) -> float:
    """Return the geometric mean of those above 0; 0 if none is."""
    found = [value for value in figures if value > 0]
    return statistics.geometric_mean(found) if found else 0.0


def times_as_good(own: float, base: float, better: str) -> float:
    """Return how many times as good own is; better is "more" or "less"."""
    return own / base if better == "more" else base / own


def figure(value: float | None) -> str:
    """Return a number with the three digits that matter; None is a dash."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size < 1:
        return f"{value:#.3g}"
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def compare(
    own: Sequence[float], base: Sequence[float], better: str
) -> Comparison | None:
    """Compare figures of the same rounds; better is "more" or "less".

    None if there are fewer than two rounds with figures above 0.
    """
    pairs = [(a, b) for a, b in zip(own, base, strict=False) if a > 0 < b]
    return of_ratios([times_as_good(a, b, better) for a, b in pairs])


def of_ratios(ratios: Sequence[float]) -> Comparison | None:
    """Compare by the ratios of rounds; None if fewer than two are above 0."""
    logs = [math.log(ratio) for ratio in ratios if ratio > 0]
    if len(logs) < 2:
        return None
    middle = statistics.fmean(logs)
    spread = statistics.stdev(logs)
    error = spread / math.sqrt(len(logs))
    near, far = (
        error * t_quantile(outside, len(logs) - 1) for outside in (0.05, 0.001)
    )
    return Comparison(
        math.exp(middle),
        math.exp(middle - near),
        math.exp(middle + near),
        abs(middle) > max(far, _LEAST),
        math.exp(max(middle - far, -_FAR)),
        math.exp(min(middle + far, _FAR)),
    )


@cache
def t_quantile(outside: float, freedom: int) -> float:
    """Return the t beyond which, on both sides, lies this probability.

    With t = sqrt(freedom) * tan(angle) the density is a power of the cosine,
    which is added up here; right to four digits.
    """
    step = math.pi / 2 / _STEPS
    angles = [(place + 0.5) * step for place in range(_STEPS)]
    weights = [math.cos(angle) ** (freedom - 1) for angle in angles]
    beyond = outside * sum(weights)
    while beyond > 0:
        beyond -= weights.pop()
    return math.sqrt(freedom) * math.tan(len(weights) * step)
