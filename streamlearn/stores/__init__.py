"""Stores: bytes under keys, in memory or in RocksDB; they do not know what the bytes mean."""
