"""Ray Data and Ray Train around the stages."""
