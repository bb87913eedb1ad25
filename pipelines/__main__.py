"""`python -m voxpool_pipelines` is the `voxpool` command."""

from voxpool_pipelines.cli import main

main()
