"""Networks only: nn.Modules that know nothing of schedules, files or Ray."""
