"""The `voxpool` command: batch pipelines over the voxpool library."""
