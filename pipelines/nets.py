"""What networks there are: their sizes as counted here and as published, and what their papers report."""

import torch
from rich.console import Console
from rich.table import Table

from voxpool.layers.counts import count_folded, count_macs
from voxpool.nets import NETS, count_parameters, create_net
from voxpool.nets2d import PLANAR_NETS

IMAGE = (512, 1024)
"""Size of the image for which multiply-accumulates are counted."""


def describe_nets() -> list[dict[str, object]]:
    """One entry per network for images; nothing is computed and no memory taken."""
    rows: list[dict[str, object]] = []
    for name, entry in PLANAR_NETS.items():
        with torch.device("meta"):
            net = create_net(name)
        rows.append(
            {
                "name": name,
                "paper": entry.paper,
                "classes": entry.num_classes,
                "parameters": count_parameters(net),
                "parameters_folded": count_folded(net),
                "published_millions": entry.parameters,
                "published_is_folded": entry.folded,
                "gmacs": round(count_macs(net, (1, 3, *IMAGE)) / 1e9, 2),
                "image": list(IMAGE),
                "results": entry.results,
                "remark": entry.remark,
            }
        )
    return rows


def print_nets(console: Console) -> None:
    """Print the networks for images as a table, and name those for volumes."""
    table = Table(title=f"Networks for images; multiply-accumulates at {IMAGE[0]} x {IMAGE[1]}", title_justify="left")
    for heading in ("name", "paper", "million weights", "published", "GMAC", "published results"):
        words = heading in ("name", "paper", "published results")
        table.add_column(heading, justify="left" if words else "right", no_wrap=heading == "name")
    for row in describe_nets():
        folded = bool(row["published_is_folded"])
        counted = row["parameters_folded"] if folded else row["parameters"]
        published = "" if row["published_millions"] is None else f"{row['published_millions']:g}"
        mark = " *" if folded else ""
        table.add_row(
            str(row["name"]),
            str(row["paper"]),
            f"{int(str(counted)) / 1e6:.2f}{mark}",
            published,
            f"{row['gmacs']}",
            str(row["results"]),
        )
    console.print(table)
    console.print("* without batch norms, which are folded away for inference: so their papers count", highlight=False)
    console.print(f"Networks for volumes: {', '.join(NETS)}", highlight=False)
