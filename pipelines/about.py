"""The commands that say what there is: `voxpool nets`, `info` and `doctor`."""

from typing import Annotated

import typer


def add_about_commands(app: typer.Typer) -> None:
    """Give the command line what tells of voxpool itself."""
    for command in (nets, info, doctor):
        app.command()(command)


def nets(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """List the networks: sizes as counted and as published, results of the papers."""
    from rich.console import Console

    from voxpool_pipelines.nets import describe_nets, print_nets

    if json:
        import json as formats

        typer.echo(formats.dumps(describe_nets(), indent=2))
    else:
        print_nets(Console())


def info(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Say what is installed: versions, device, networks, the bundled model."""
    import json as formats

    from voxpool_pipelines.doctor import describe_installation

    found = describe_installation()
    if json:
        typer.echo(formats.dumps(found, indent=2))
    else:
        machine = found["machine"]
        typer.echo(f"voxpool {found['voxpool']}, torch {machine['versions']['torch']}, Python {machine['python']}")
        typer.echo(f"device {found['device']}: {machine['gpu'] or machine['processor']}, bfloat16: {found['bf16']}")
        typer.echo(
            f"bundled model {found['bundled_model']['sha256'][:12]}: {len(found['bundled_model']['classes'])} classes"
        )
        typer.echo(f"networks: {', '.join([*found['networks']['volumes'], *found['networks']['images']])}")


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Look what is missing, and say how to get it; exit code 6 where voxpool cannot work."""
    import json as formats

    from rich.console import Console

    from voxpool.errors import ResourceError
    from voxpool_pipelines.doctor import as_json, examine, print_examination

    checks = examine()
    if json:
        typer.echo(formats.dumps(as_json(checks), indent=2))
    else:
        print_examination(checks, Console())
    if any(check.verdict == "wrong" for check in checks):
        raise typer.Exit(ResourceError.exit_code)
