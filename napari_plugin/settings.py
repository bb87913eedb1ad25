"""What a person set for voxpool in napari's preferences."""

from typing import Any


def setting(section: str, name: str, default: Any) -> Any:
    """A value of the plugin's settings page; the default where napari does not know the plugin's page.

    Args:
        section: Key of a configuration in `napari.yaml`.
        name: Key of one of its properties.
        default: As in `napari.yaml`.
    """
    from napari.settings import get_plugin_settings

    try:
        return getattr(getattr(get_plugin_settings("voxpool"), section), name)
    except (AttributeError, KeyError):
        return default
