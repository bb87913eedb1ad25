"""The windows' parts: each shows a `SegmentationSession` or calls it, and decides nothing."""
