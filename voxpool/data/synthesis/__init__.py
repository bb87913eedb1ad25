"""Images of heads made from label maps: any contrast, resolution and artefact, with the truth at hand.

Billot et al., SynthSeg: segmentation of brain MRI scans of any contrast and resolution without retraining, Medical
Image Analysis 86 (2023): a network that never sees the same contrast twice learns to depend on none.

What is random is drawn from a `torch.Generator` on the CPU, so that the same seed gives the same image; the work is
done on the device of the map.
"""

from voxpool.data.synthesis.config import SynthesisConfig
from voxpool.data.synthesis.head_map import HeadMap, read_head_map
from voxpool.data.synthesis.sample import SyntheticHead, draw_image, draw_structures, synthesise

__all__ = [
    "HeadMap",
    "SynthesisConfig",
    "SyntheticHead",
    "draw_image",
    "draw_structures",
    "read_head_map",
    "synthesise",
]
