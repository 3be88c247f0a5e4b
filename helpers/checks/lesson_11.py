"""Checks of lesson 11."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..exercises import Wrong, checker

# --- 11-2: what does it cost, and what bills on? -------------------------------------------------------


def _entry(deployment: str, hours: float, stands: bool, start: float = 1_790_000_000.0) -> dict[str, Any]:
    ended = None if stands else start + 3600 * hours
    return {
        "id": f"meter-{deployment}-{start:.0f}", "deployment": deployment, "model": f"base.ft-{deployment}",
        "started_at": start, "ended_at": ended, "hours": hours,
    }  # fmt: skip


_METERS = (
    [],
    [_entry("shop", 2.5, False), _entry("mail", 700.0, True)],
    [_entry("shop", 1.0, False), _entry("shop", 0.25, True, 1_790_010_000.0), _entry("test", 3.0, False)],
    [_entry("a", 4.0, False), _entry("b", 5.0, False)],
)


@checker("11-2")
def my_bill(function: Callable) -> str:
    for meter in _METERS:
        for per_hour in (1.7, 3.0):
            _one_bill(function, copy.deepcopy(meter), per_hour)
    return "Right: what stood costs, what stands goes on costing, and a name that was deployed twice is billed twice."


def _one_bill(function: Callable, meter: list[dict], per_hour: float) -> None:
    right, stand = (
        per_hour * sum(one["hours"] for one in meter),
        {d["deployment"] for d in meter if d["ended_at"] is None},
    )
    got = function(copy.deepcopy(meter), per_hour)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong(f"It gave {got!r:.60}: return two things, the USD so far and the names that still stand.")
    usd, names = got
    if isinstance(names, int | float) and not isinstance(usd, int | float):
        raise Wrong("The other way round: first the USD, then the names.")
    if isinstance(usd, bool) or not isinstance(usd, int | float):
        raise Wrong(f"The first of the two is {usd!r:.40}: return the USD as a number.")
    if isinstance(names, str | Mapping) or not isinstance(names, Iterable):
        raise Wrong(f"The second of the two is {names!r:.40}: return a list of names, empty if nothing stands.")
    names = list(names)
    if any(isinstance(name, Mapping) for name in names):
        raise Wrong("Return the *names* of what stands: one['deployment'] of each entry.")
    if set(map(str, names)) != stand:
        if set(map(str, names)) == {one["deployment"] for one in meter}:
            raise Wrong("You name whatever ever stood. What has an `ended_at` has been taken down.")
        gone = stand - set(map(str, names))
        if gone and any(one["deployment"] in gone and one["ended_at"] for one in meter):
            raise Wrong("A deployment was taken down and made again under its old name: its second entry still runs.")
        raise Wrong(f"It names {sorted(map(str, names))!r:.60}; still standing are {sorted(stand)}.")
    if not math.isclose(usd, right, abs_tol=0.011):
        open_only = per_hour * sum(one["hours"] for one in meter if one["ended_at"] is None)
        closed_only = per_hour * sum(one["hours"] for one in meter if one["ended_at"] is not None)
        if math.isclose(usd, open_only, abs_tol=0.011):
            raise Wrong("Only what stands is in your sum. What has been taken down is paid for, too.")
        if math.isclose(usd, closed_only, abs_tol=0.011):
            raise Wrong("Only what was taken down is in your sum. What stands has cost something already.")
        if math.isclose(usd, sum(one["hours"] for one in meter), abs_tol=0.011):
            raise Wrong("Those are hours. Each costs `per_hour`.")
        rounded = per_hour * sum(math.ceil(one["hours"]) for one in meter)
        if math.isclose(usd, rounded, abs_tol=0.011):
            raise Wrong("You round each up to whole hours. Some providers do; this meter has fractions: take them.")
        raise Wrong(f"For a meter that you have not seen it gave {usd:,.2f} USD, not {right:,.2f}.")
