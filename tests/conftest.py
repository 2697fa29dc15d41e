"""What every test shares: no window is opened, and Hypothesis draws the same examples each time."""

import os

from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "agg")

settings.register_profile("fixed", derandomize=True, deadline=None)  # no random seed, no clock
settings.load_profile("fixed")
