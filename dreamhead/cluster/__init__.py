"""Ray Data around the stages."""
