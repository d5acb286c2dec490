"""Hosts, replicas and collectives of a training run."""
