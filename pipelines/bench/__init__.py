"""`voxpool bench`: correctness first, then times against what the memory allows."""
