"""Train: `ray job submit -- python ray_jobs/train.py --stage all ...`, or without a cluster."""

import sys

from dreamhead.cluster.train import main

if __name__ == "__main__":
    sys.exit(main())
