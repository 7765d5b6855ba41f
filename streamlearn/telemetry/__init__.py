"""Telemetry: what is measured, and where it is shown. It decides nothing."""
