"""`python -m voxpool_pipelines` is the `voxpool` command."""

from voxpool_pipelines.cli import main

if __name__ == "__main__":  # worker processes import this module under another name
    main()
