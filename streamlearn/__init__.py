"""streamlearn: a classifier that never stops learning, on Kafka."""
