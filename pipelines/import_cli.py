"""The command `voxpool import`."""

from pathlib import Path
from typing import Annotated

import typer


def import_(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a MONAI bundle.")],
    out: Annotated[Path, typer.Option("--out", help="Model package to write.")],
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the bundle's configuration run: it is code of others.")
    ] = False,
) -> None:
    """Make a model package of a MONAI bundle; of those that voxpool did not write, with --trust alone."""
    from voxpool.bundle_import import import_bundle

    typer.echo(f"model package: {import_bundle(bundle, out, trust=trust)}")
