// Padding of blocks from their neighbours, and its adjoint. One text for NVRTC and, in the tests, for a C++ compiler.
//
// Blocks are rows: high (n, B0, B1, B2, C) at full resolution, low at 1 / f of it along each axis; images in 2D have a
// first axis of one block, one element, f = 1 and no padding. `index` (N, G0, G1, G2) says which block lies where: a
// number of `high`, or -1 - number of `low`; `entries` says where in the index each block of the output lies.
// Both directions gather, one thread per element, so that every run gives the same bits.

#include "element.cuh"

struct Axis {
  int blocks;  // of the grid
  int side;    // of a block at full resolution
  int pad;
  int factor;  // between the resolutions
};

struct Shape {
  Axis axis[3];
  int channels;
  int count;  // blocks of the output
  int replicate;
};

// Passed as single numbers: a structure has no NumPy type of a fixed layout on every platform.
#define SHAPE_ARGUMENTS                                                                                            \
  int g0, int g1, int g2, int b0, int b1, int b2, int p0, int p1, int p2, int f0, int f1, int f2, int C, int count, \
      int replicate
#define SHAPE                                                                                           \
  {                                                                                                     \
    {{g0, b0, p0, f0}, {g1, b1, p1, f1}, {g2, b2, p2, f2}}, C, count, replicate                         \
  }

__device__ inline i64 row_of(int block, const int* at, const int* side, int channels, int c) {
  return (((i64(block) * side[0] + at[0]) * side[1] + at[1]) * side[2] + at[2]) * channels + c;
}

// Which block, which of its places and which channel an element is.
__device__ inline int locate(i64 element, const int* size, int channels, int* at, int* c) {
  *c = int(element % channels);
  i64 row = element / channels;
#pragma unroll
  for (int k = 2; k >= 0; k--) {
    at[k] = int(row % size[k]);
    row /= size[k];
  }
  return int(row);
}

__device__ inline int sample_of(int entry, const Shape& shape, int* place) {
#pragma unroll
  for (int k = 2; k >= 0; k--) {
    place[k] = entry % shape.axis[k].blocks;
    entry /= shape.axis[k].blocks;
  }
  return entry;
}

__device__ inline int entry_of(int sample, const int* place, const Shape& shape) {
  return ((sample * shape.axis[0].blocks + place[0]) * shape.axis[1].blocks + place[1]) * shape.axis[2].blocks +
         place[2];
}

// One thread per element of the padded blocks of one resolution.
template <class T, bool HIGH>
__global__ void __launch_bounds__(256) pad_blocks(
    const T* __restrict__ high, const T* __restrict__ low, const int* __restrict__ index,
    const int* __restrict__ entries, T* __restrict__ out, typename Element<T>::Acc beyond, SHAPE_ARGUMENTS) {
  typedef typename Element<T>::Acc Acc;
  const Shape shape = SHAPE;
  int full[3], half[3], own[3], padded[3], at[3], c;
  i64 total = i64(shape.count) * shape.channels;
#pragma unroll
  for (int k = 0; k < 3; k++) {
    full[k] = shape.axis[k].side;
    half[k] = full[k] / shape.axis[k].factor;
    own[k] = HIGH ? full[k] : half[k];
    padded[k] = own[k] + 2 * shape.axis[k].pad;
    total *= padded[k];
  }
  const i64 element = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (element >= total) return;
  const int block = locate(element, padded, shape.channels, at, &c);
  int place[3], neighbour[3], local[3];
  const int sample = sample_of(entries[block], shape, place);
#pragma unroll
  for (int k = 0; k < 3; k++) {
    const int size = shape.axis[k].blocks * own[k];
    int x = place[k] * own[k] + at[k] - shape.axis[k].pad;
    if (x < 0 || x >= size) {
      if (!shape.replicate) {
        out[element] = Element<T>::narrow(beyond);
        return;
      }
      x = x < 0 ? 0 : size - 1;
    }
    neighbour[k] = x / own[k];
    local[k] = x % own[k];
  }
  const int found = index[entry_of(sample, neighbour, shape)];
  if (HIGH) {
    if (found < 0) {
#pragma unroll
      for (int k = 0; k < 3; k++) local[k] /= shape.axis[k].factor;
      out[element] = low[row_of(-1 - found, local, half, shape.channels, c)];
    } else {
      out[element] = high[row_of(found, local, full, shape.channels, c)];
    }
    return;
  }
  if (found < 0) {
    out[element] = low[row_of(-1 - found, local, half, shape.channels, c)];
    return;
  }
  Acc sum = 0;
  int fine[3], parts = 1;
#pragma unroll
  for (int k = 0; k < 3; k++) parts *= shape.axis[k].factor;
  for (int part = 0; part < parts; part++) {
    int rest = part;
#pragma unroll
    for (int k = 0; k < 3; k++) {
      fine[k] = local[k] * shape.axis[k].factor + rest % shape.axis[k].factor;
      rest /= shape.axis[k].factor;
    }
    sum += widen(high[row_of(found, fine, full, shape.channels, c)]);
  }
  out[element] = Element<T>::narrow(sum / Acc(parts));
}

// One thread per element of the blocks of one resolution: it adds up the gradients of all that was copied from it.
template <class T, bool HIGH>
__global__ void __launch_bounds__(256) pad_blocks_backward(
    const T* __restrict__ high, const T* __restrict__ low, const int* __restrict__ index,
    const int* __restrict__ entries, T* __restrict__ out, SHAPE_ARGUMENTS) {
  typedef typename Element<T>::Acc Acc;
  const Shape shape = SHAPE;
  int own[3], at[3], c, parts = 1;
  i64 total = i64(shape.count) * shape.channels;
#pragma unroll
  for (int k = 0; k < 3; k++) {
    own[k] = HIGH ? shape.axis[k].side : shape.axis[k].side / shape.axis[k].factor;
    total *= own[k];
    parts *= shape.axis[k].factor;
  }
  const i64 element = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (element >= total) return;
  const int block = locate(element, own, shape.channels, at, &c);
  int place[3], neighbour[3];
  const int sample = sample_of(entries[block], shape, place);
  Acc sum = 0;
#pragma unroll 1
  for (int step = 0; step < 27; step++) {
    const int move[3] = {step / 9 - 1, step / 3 % 3 - 1, step % 3 - 1};
    bool inside = true;
#pragma unroll
    for (int k = 0; k < 3; k++) {
      neighbour[k] = place[k] + move[k];
      inside = inside && neighbour[k] >= 0 && neighbour[k] < shape.axis[k].blocks;
    }
    if (!inside) continue;
    const int found = index[entry_of(sample, neighbour, shape)];
    const bool fine = found >= 0;
    // which of the neighbour's padded elements were read from this one: a range along each axis
    int from[3], to[3], padded[3];
#pragma unroll
    for (int k = 0; k < 3; k++) {
      const Axis axis = shape.axis[k];
      const int side = fine ? axis.side : axis.side / axis.factor, size = axis.blocks * side;
      const int x = place[k] * own[k] + at[k];  // in the image, at this resolution
      const int first = HIGH && !fine ? x / axis.factor : !HIGH && fine ? x * axis.factor : x;
      const int last = !HIGH && fine ? first + axis.factor - 1 : first;
      padded[k] = side + 2 * axis.pad;
      from[k] = first - neighbour[k] * side + axis.pad;
      to[k] = last - neighbour[k] * side + axis.pad;
      if (shape.replicate && first == 0) from[k] = 0;
      if (shape.replicate && last == size - 1) to[k] = padded[k] - 1;
      if (from[k] < 0) from[k] = 0;
      if (to[k] >= padded[k]) to[k] = padded[k] - 1;
    }
    const T* grad = fine ? high : low;
    const int number = fine ? found : -1 - found;
    Acc part = 0;
    int q[3];
#pragma unroll 1
    for (q[0] = from[0]; q[0] <= to[0]; q[0]++)
#pragma unroll 1
      for (q[1] = from[1]; q[1] <= to[1]; q[1]++)
#pragma unroll 1
        for (q[2] = from[2]; q[2] <= to[2]; q[2]++) part += widen(grad[row_of(number, q, padded, shape.channels, c)]);
    sum += HIGH && !fine ? part / Acc(parts) : part;
  }
  out[element] = Element<T>::narrow(sum);
}
