"""The main job: all stages in order, under a budget, resumable.

`compress` (in `job`) measures the original, prices every pruning decision (`pricing`), puts them on a `ladder` from
mild to bold, measures who teaches fastest (`teaching`), finds by `screening` which rung to aim at, goes through
`rounds` of pruning and `recovery` while the budget holds on the selection split, and ends with the choice between the
`candidates`, its `measuring` on the test split, the bundle and the report (`finish`). Every stage is kept in the run's
store (`run`, `stages`).
"""

from edgekit.compress.budget import Budget
from edgekit.compress.callback import BundleCallback
from edgekit.compress.job import compress
from edgekit.compress.settings import Settings

__all__ = ["Budget", "BundleCallback", "Settings", "compress"]
