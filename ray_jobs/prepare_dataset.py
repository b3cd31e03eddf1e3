"""Prepare training data: `ray job submit -- python ray_jobs/prepare_dataset.py VIDEOS --output DATA`, or locally."""

import sys

from dreamhead.cluster.prepare import main

if __name__ == "__main__":
    sys.exit(main())
