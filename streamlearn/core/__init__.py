"""The learner, stage by stage. Pure: no files, clocks, environment or services."""
