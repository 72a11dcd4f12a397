"""Job files that run a config on a cluster: readable shell scripts, written once and then the user's."""
