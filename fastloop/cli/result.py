"""The result of a measurement: figures, sentences, JSON."""

import json
from typing import Any

from .commands import Refused
from .compare import ENOUGH_ROUNDS, Comparison, compare, figure, mean
from .options import listed


class Result:
    """All figures by loop; the loop that is judged is the candidate.

    data is what the JSON file has.
    """

    def __init__(self, race: Any, loops: list[str]) -> None:
        self.loops = loops
        self.runs: dict[str, list[dict[str, float]]] = {
            loop: [] for loop in loops
        }
        #: Dicts of key, title, unit and better: "more" or "less".
        self.metrics: list[dict[str, str]] = [
            dict(zip(("key", "title", "unit", "better"), metric, strict=True))
            for metric in race.metrics
        ]
        self.data: dict[str, Any] = {
            "kind": race.kind,
            "what": race.title,
            "loops": loops,
            "metrics": self.metrics,
            "runs": self.runs,
            "unused_loops": [],
            "notes": [],
            "cut": None,
        }

    def save(self, path: str) -> None:
        """Write all figures and the sentences as JSON."""
        found = {"fastloop": {**self.data, "summary": self.sentences()}}
        try:
            with open(path, "w") as file:
                file.write(json.dumps(found, indent=1) + "\n")
        except OSError as exc:
            raise Refused(f"cannot write {path}: {exc.strerror}") from exc

    @property
    def candidate(self) -> str:
        """fastloop if it ran, else the last."""
        return "fastloop" if "fastloop" in self.loops else self.loops[-1]

    @property
    def finished(self) -> int:
        """The number of rounds that every loop has finished."""
        return min(len(self.runs[loop]) for loop in self.loops)

    @property
    def rounds(self) -> str:
        """Rounds that every loop has finished, in words."""
        number = self.finished
        return "1 round" if number == 1 else f"{number} rounds"

    def mean(self, loop: str, key: str) -> float | None:
        """Return the mean of a loop's figures, or None without any.

        A round that not every loop has finished does not count.
        """
        runs = self.runs[loop][: self.finished]
        found = [run[key] for run in runs if key in run]
        return mean(found) if found else None

    def compared_with(
        self, base: str, metric: dict[str, str]
    ) -> Comparison | None:
        """Compare the candidate with another loop.

        None if the program took one of the two loops nowhere, or there are
        too few rounds.
        """
        if {self.candidate, base} & set(self.data["unused_loops"]):
            return None
        key = metric["key"]
        rounds = zip(self.runs[self.candidate], self.runs[base], strict=False)
        pairs = [(a[key], b[key]) for a, b in rounds if key in a and key in b]
        own, other = zip(*pairs, strict=True) if pairs else ((), ())
        return compare(own, other, metric["better"])

    def others(self) -> list[str]:
        """Return the loops that the candidate is compared with."""
        return [loop for loop in self.loops if loop != self.candidate]

    def table(self) -> list[list[str]]:
        """Return the means, and how many times as good the candidate is."""
        heads = [f"vs {base}" for base in self.others()]
        rows = [["", *self.loops, *heads]]
        for metric in self.metrics:
            unit = f" ({metric['unit']})" if metric["unit"] else ""
            means = (self.mean(one, metric["key"]) for one in self.loops)
            ratios = (
                self.compared_with(base, metric) for base in self.others()
            )
            cells = [*map(figure, means), *map(self._ratio, ratios)]
            rows.append([f"{metric['title']}{unit}", *cells])
        return rows

    def _ratio(self, found: Comparison | None) -> str:
        if found is None:
            return "-"
        text = f"{found.ratio:.2f}"
        if self._has_intervals():
            text += f" ({found.bounds})"
        return text if found.sure else f"{text} ?"

    def _has_intervals(self) -> bool:
        """Whether intervals are shown: that of two rounds says nothing."""
        return self.finished > 2

    def legend(self) -> str:
        """Return what the ratios of the table mean; "" if it has none."""
        bases = self.others()
        if not any(
            self.compared_with(b, m) for b in bases for m in self.metrics
        ):
            return ""
        and_its = " (and its 99.9 % interval)" if self._has_intervals() else ""
        doubt = "no significant difference"
        if self.finished < ENOUGH_ROUNDS:
            doubt = "too few rounds to tell"
        return (
            f"vs: how many times as good {self.candidate} is{and_its}; "
            f"?: {doubt}"
        )

    def sentences(self) -> list[str]:
        """Return the verdict in one sentence, then notes on it."""
        unused = self.data["unused_loops"]
        found = []
        if len(unused) < len(self.loops):
            first = self.metrics[0]
            clauses = [self._verdict(base, first) for base in self.others()]
            found.append("; ".join(clauses) + ".")
        if unused:
            found.append(
                "The program took no loop from asyncio's default: in the runs "
                f"of {listed(unused)} it did not use the loop that bench "
                "set. So no ratio is given. `python -m fastloop run` names "
                "another loop that its process starts, and is silent if it "
                "starts none; pytest-xdist's workers take none (`-n 0`)."
            )
        found += self.data["notes"]
        if cut := self.data["cut"]:
            found.append(f"Not complete: {cut}.")
        return found

    def _verdict(self, base: str, metric: dict[str, str]) -> str:
        own = self.candidate
        found = self.compared_with(base, metric)
        if {own, base} & set(self.data["unused_loops"]):
            return f"{own} and {base} were not compared"
        if found is None:
            return f"{own} and {base} had too few runs to compare"
        if not found.sure and self.finished < ENOUGH_ROUNDS:
            doubt = f"{found.ratio:.2f} times"
            if self._has_intervals():
                doubt = found.doubt
            return f"{self.rounds} cannot tell {own} from {base} ({doubt})"
        if self.data["kind"] == "http":
            did = "answers {} as many requests a second as"
        else:
            did = "is {} as fast as"
        return found.verdict(own, did, base)
