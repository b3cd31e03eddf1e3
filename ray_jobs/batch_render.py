"""Dub a manifest: `ray job submit -- python ray_jobs/batch_render.py manifest.parquet`, or without a cluster."""

import sys

from dreamhead.cluster.batch import main

if __name__ == "__main__":
    sys.exit(main())
