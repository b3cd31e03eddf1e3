"""Online dubbing on Ray Serve: durable jobs in storage, an HTTP interface, deployments that scale apart."""

import os

# Replicas share a machine's cores: threads of their networks that wait for each other must not spin meanwhile. It is
# read when torch is loaded, and Serve's own settings for a replica's environment would be lost with other sizes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
