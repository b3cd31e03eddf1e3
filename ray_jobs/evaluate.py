"""Judge weights: `ray job submit -- python ray_jobs/evaluate.py --clips FOLDER --output DIR`, or without a cluster."""

import sys

from dreamhead.cluster.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
