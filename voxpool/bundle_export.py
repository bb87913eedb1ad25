"""A model package as a MONAI bundle: its folders, metadata and inference configuration, around the package itself."""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from voxpool import __version__
from voxpool.errors import UsageError
from voxpool.io import write_json, write_text
from voxpool.model_package import ModelInfo, load_package, model_folder

_README = """# {name}

A voxpool model as a MONAI bundle: {net}, head {head}, classes {classes}.

    pip install fire  # with which MONAI reads the options
    python -m monai.bundle run --config_file configs/inference.json --bundle_root . --input scan.nii.gz --output labels.nii.gz

`models/` is the model package; `voxpool predict scan.nii.gz --model models --out FOLDER` does the same. Research use
only, not a medical device.
"""  # noqa: E501 - a command is one line


def export_bundle(package: Path | str, folder: Path | str) -> Path:
    """Write a model package as a MONAI bundle, which `python -m monai.bundle run` segments scans with.

    The package lies in the bundle's `models`, with its checksums: nothing in it is a pickle. The configuration names
    voxpool's functions, so voxpool must be installed where the bundle is run.

    Args:
        package: A model package, or "bundled".
        folder: Where the bundle goes; must not exist.

    Returns:
        The folder.

    Raises:
        ModelError: If the package is refused.
        UsageError: If the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise UsageError(f"{folder} is there already; choose another name")
    _, info = load_package(package)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for name in ("configs", "docs"):
            (part / name).mkdir(parents=True)
        shutil.copytree(model_folder(package), part / "models")
        write_json(part / "configs" / "metadata.json", _metadata(folder.name, info))
        write_json(part / "configs" / "inference.json", _inference())
        classes = ", ".join(info.label_names.values())
        write_text(
            part / "docs" / "README.md",
            _README.format(name=folder.name, net=info.net, head=info.head, classes=classes),
        )
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _inference() -> dict[str, Any]:
    return {
        "bundle_root": ".",
        "input": "scan.nii.gz",
        "output": "labels.nii.gz",
        "device": "auto",
        "segmenter": {
            "_target_": "voxpool.inference.Segmenter.load",
            "folder": "$@bundle_root + '/models'",
            "device": "@device",
        },
        "network_def": "$@segmenter.nets[0]",
        "volume": {"_target_": "voxpool.io.read_volume", "path": "@input"},
        "segmentation": "$@segmenter.segment(@volume)",
        "write": {
            "_target_": "voxpool.io.write_volume",
            "path": "@output",
            "array": "$@segmentation.labels",
            "like": "@volume",
        },
        "run": ["@write"],
    }


def _metadata(name: str, info: ModelInfo) -> dict[str, Any]:
    whole = {"spatial_shape": ["*", "*", "*"], "is_patch_data": False}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": __version__,
        "changelog": {__version__: "exported by voxpool"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"voxpool": __version__, "nibabel": version("nibabel")},
        "name": name,
        "task": "segmentation of volumes",
        "description": f"{info.net}, head {info.head}; {info.convention}",
        "authors": "",
        "copyright": "",
        "intended_use": "research only, not a medical device",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": len(info.channels),
                    "dtype": "float32",
                    "value_range": [],
                    "channel_def": {str(number): channel for number, channel in enumerate(info.channels)},
                    **whole,
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(info.label_names),
                    "dtype": "float32",
                    "value_range": [0, max(info.label_names)],
                    "channel_def": {str(label): text for label, text in info.label_names.items()},
                    **whole,
                }
            },
        },
    }
