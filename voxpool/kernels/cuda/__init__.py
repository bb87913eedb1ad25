"""CUDA sources, compiled by `voxpool.kernels._cuda` when they are first used."""
