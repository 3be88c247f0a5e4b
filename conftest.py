"""Every session of tests starts from an empty folder of runs, in this process and in the notebooks' kernels."""

from __future__ import annotations

import os
import tempfile

# Nothing stale may turn a broken trainer green. The model's cache stays: fetching it is tested by itself.
_scratch = tempfile.TemporaryDirectory(prefix="course-runs-", ignore_cleanup_errors=True)
os.environ["COURSE_RUNS"] = _scratch.name
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
