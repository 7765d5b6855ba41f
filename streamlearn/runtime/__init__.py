"""Kafka is met here, and only here: the order in which things happen."""
