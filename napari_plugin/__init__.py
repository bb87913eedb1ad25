"""The napari plugin of voxpool."""
