"""Online dubbing on Ray Serve: durable jobs in storage, an HTTP interface, deployments that scale apart."""
