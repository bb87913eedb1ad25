"""Data sets of images: finding them, their classes, augmented crops and superpixels."""

from voxpool.data2d.classes import CAMVID, CITYSCAPES, VOC, ImageClasses
from voxpool.data2d.layouts import ImageCase, ImageDataset, find_images

__all__ = ["CAMVID", "CITYSCAPES", "VOC", "ImageCase", "ImageClasses", "ImageDataset", "find_images"]
