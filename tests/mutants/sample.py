"""Leave a sample of a cosmic-ray session: `python tests/mutants/sample.py SESSION EVERY [FIRST]`.

Of the mutants that are still to be tried, in the order of files and lines, all but every EVERY-th from the FIRST (0)
are marked as skipped. The same sources give the same sample.
"""

from __future__ import annotations

import sys

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkerOutcome, WorkResult


def main(session: str, every: int, first: int = 0) -> None:
    """Skip what is not in the sample, and say how many are."""
    with use_db(session, WorkDB.Mode.open) as database:
        pending = [(_place(item), item.job_id) for item in database.pending_work_items]
        ordered = [job for _, job in sorted(pending)]
        chosen = ordered[first::every]
        for job in sorted({*ordered} - {*chosen}):
            database.set_result(job, WorkResult(WorkerOutcome.SKIPPED, output="not in the sample"))
    print(f"{len(chosen)} of {len(ordered)} mutants chosen")


def _place(item: object) -> tuple[str, tuple[int, int], str, int]:
    (mutation,) = item.mutations  # type: ignore[attr-defined]
    return (
        mutation.module_path.as_posix(),
        mutation.start_pos,
        mutation.operator_name,
        mutation.occurrence,
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
