// Supervoxel pooling and its adjoints. One text for NVRTC and, in the tests, for a C++ compiler.
//
// The plan (voxpool/kernels/pool_plan.py) sorts the voxels by (sample, tile, segment, voxel). A chunk is at most 256
// consecutive sorted voxels of one tile, a piece a run of one segment within a chunk. One warp reduces a chunk to one
// partial per piece; the partials of a segment lie in consecutive rows and are joined in a fixed order, 64 at a time.
// No atomics and no shared memory, hence the same bits on every run.
//
// Maps are x (N, C, P) or, in the kernels called `_rows`, channels-last (N, P, C). Voxels are counted in 32 bits
// (N * P < 2^31), elements in 64.

#include "element.cuh"

constexpr unsigned FULL = 0xffffffffu;
constexpr int NOWHERE = 0x7fffffff;
constexpr int STEPS = 8;  // loads in flight per lane; a chunk is 32 * STEPS voxels

// V neighbours in memory, moved in as few instructions as 16 bytes at a time allow.
template <class T, int V> struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack { T at[V]; };

// Keys order as the values do, every NaN above +inf, -0 equal to +0. No value has key 0, which so is below all.
__device__ inline unsigned key(float f) {
  if (f != f) return 0xffffffffu;
  const unsigned bits = unsigned(__float_as_int(f + 0.f));
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline u64 key(double f) {
  if (f != f) return ~0ull;
  const u64 bits = u64(__double_as_longlong(f + 0.));
  return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}

// Tells the compiler that a value is the same in all lanes: loops bounded by it need no code for lanes that part.
__device__ inline int uniform(int v) { return __shfl_sync(FULL, v, 0); }

// ---- the two reductions ----------------------------------------------------------------------------------------

template <class T> struct Sum {
  typedef typename Element<T>::Acc Acc;
  static constexpr bool LOCATES = false;
  Acc value = 0;
  int at = NOWHERE;
  __device__ void take(Acc x, int, bool inside) { value += inside ? x : Acc(0); }
  __device__ void join(Acc x, int) { value += x; }
  // afterwards every lane holds the fold of all lanes that are a multiple of `width` away
  __device__ void fold(int width) {
    for (int d = 16; d >= width; d >>= 1) value += __shfl_xor_sync(FULL, value, d);
  }
};

template <class T> struct Max {
  typedef typename Element<T>::Acc Acc;
  typedef typename Element<T>::Key Key;
  static constexpr bool LOCATES = true;
  Acc value = 0;
  int at = NOWHERE;
  Key top = 0;
  // voxels come in rising order, so that > keeps the lowest index among equals
  __device__ void take(Acc x, int voxel, bool inside) {
    const Key k = key(x);
    if (inside && k > top) {
      top = k;
      at = voxel;
      value = x;
    }
  }
  __device__ void join(Acc x, int where) { join(x, where, key(x)); }
  __device__ void join(Acc x, int where, Key k) {
    if (k > top || (k == top && where < at)) {
      top = k;
      at = where;
      value = x;
    }
  }
  __device__ void fold(int width) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    if constexpr (sizeof(Key) == 4) {
      if (width == 1) {  // two instructions of the warp in place of fifteen shuffles
        const unsigned most = __reduce_max_sync(FULL, top);
        const int first = __reduce_min_sync(FULL, top == most ? at : NOWHERE);
        const unsigned holder = __ballot_sync(FULL, at == first);
        value = __shfl_sync(FULL, value, __ffs(int(holder)) - 1);
        top = most;
        at = first;
        return;
      }
    }
#endif
    for (int d = 16; d >= width; d >>= 1) {
      const Key k = __shfl_xor_sync(FULL, top, d);
      const int where = __shfl_xor_sync(FULL, at, d);
      const Acc x = __shfl_xor_sync(FULL, value, d);
      join(x, where, k);
    }
  }
};

// ---- chunks -> partials (rows, C) ------------------------------------------------------------------------------

// Grid: (chunks / warps per block, channels / group). A warp keeps its voxels in registers for all its channels.
template <class T, template <class> class R>
__global__ void __launch_bounds__(256) pool_chunks(
    const T* __restrict__ x, const int* __restrict__ voxels, const int* __restrict__ piece_start,
    const int* __restrict__ piece_row, const int* __restrict__ chunk_piece,
    typename Element<T>::Acc* __restrict__ part, int* __restrict__ part_at, int chunks, int C, int P, int group) {
  const int lane = threadIdx.x & 31, chunk = int(blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5));
  if (chunk >= chunks) return;
  const int first = uniform(chunk_piece[chunk]), last = uniform(chunk_piece[chunk + 1]);
  const int start = piece_start[first], size = piece_start[last] - start;
  const int sample = voxels[start] / P;
  int voxel[STEPS];
#pragma unroll
  for (int j = 0; j < STEPS; j++) {
    const int p = j * 32 + lane;
    voxel[j] = p < size ? voxels[start + p] - sample * P : NOWHERE;
  }
  const int c0 = int(blockIdx.y) * group, c1 = min(C, c0 + group);
  const T* xc = x + (i64(sample) * C + c0) * P;
  for (int c = c0; c < c1; c++, xc += P) {
    typename Element<T>::Acc value[STEPS];
#pragma unroll
    for (int j = 0; j < STEPS; j++) value[j] = voxel[j] != NOWHERE ? widen(xc[voxel[j]]) : 0;
    for (int q = first; q < last; q++) {
      const int lo = piece_start[q] - start, hi = piece_start[q + 1] - start;
      R<T> r;
#pragma unroll
      for (int j = 0; j < STEPS; j++) {
        const int p = j * 32 + lane;
        r.take(value[j], voxel[j], unsigned(p - lo) < unsigned(hi - lo));
      }
      r.fold(1);
      if (lane == 0) {
        const i64 to = i64(piece_row[q]) * C + c;
        part[to] = r.value;
        if constexpr (R<T>::LOCATES) part_at[to] = r.at;
      }
    }
  }
}

// Grid: (chunks / warps per block, channels / width). `width` lanes (a power of two up to 32) take the channels of a
// voxel, the rest of the warp further voxels.
template <class T, template <class> class R>
__global__ void __launch_bounds__(256) pool_chunks_rows(
    const T* __restrict__ x, const int* __restrict__ voxels, const int* __restrict__ piece_start,
    const int* __restrict__ piece_row, const int* __restrict__ chunk_piece,
    typename Element<T>::Acc* __restrict__ part, int* __restrict__ part_at, int chunks, int C, int P, int width) {
  const int lane = threadIdx.x & 31, chunk = int(blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5));
  if (chunk >= chunks) return;
  const int first = uniform(chunk_piece[chunk]), last = uniform(chunk_piece[chunk + 1]);
  const int sample_start = voxels[piece_start[first]] / P * P;
  const int slot = lane / width, slots = 32 / width, c = int(blockIdx.y) * width + lane % width;
  const T* xc = x + c;
  for (int q = first; q < last; q++) {
    const int lo = piece_start[q], hi = piece_start[q + 1];
    R<T> r;
    for (int from = lo + slot; from < hi; from += STEPS * slots) {
      int voxel[STEPS];
      typename Element<T>::Acc value[STEPS];
#pragma unroll
      for (int j = 0; j < STEPS; j++) {
        const int p = from + j * slots;
        voxel[j] = p < hi && c < C ? voxels[p] : NOWHERE;
      }
#pragma unroll
      for (int j = 0; j < STEPS; j++) value[j] = voxel[j] != NOWHERE ? widen(xc[i64(voxel[j]) * C]) : 0;
#pragma unroll
      for (int j = 0; j < STEPS; j++) r.take(value[j], voxel[j] - sample_start, voxel[j] != NOWHERE);
    }
    r.fold(width);
    if (slot == 0 && c < C) {
      const i64 to = i64(piece_row[q]) * C + c;
      part[to] = r.value;
      if constexpr (R<T>::LOCATES) part_at[to] = r.at;
    }
  }
}

// ---- partials -> fewer partials -> segments --------------------------------------------------------------------

template <class T, template <class> class R>
__device__ inline R<T> join_rows(const typename Element<T>::Acc* part, const int* part_at, int lo, int hi, int C, int c) {
  R<T> r;
#pragma unroll 4
  for (int row = lo; row < hi; row++) {
    const i64 from = i64(row) * C + c;
    r.join(part[from], R<T>::LOCATES ? part_at[from] : 0);
  }
  return r;
}

// One thread per (group of rows, channel), neighbours in the channel.
template <class T, template <class> class R>
__global__ void __launch_bounds__(256) fold_pieces(
    const typename Element<T>::Acc* __restrict__ part, const int* __restrict__ part_at, const int* __restrict__ starts,
    typename Element<T>::Acc* __restrict__ joined, int* __restrict__ joined_at, int groups, int C) {
  const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= i64(groups) * C) return;
  const int g = int(i / C), c = int(i % C);
  const R<T> r = join_rows<T, R>(part, part_at, starts[g], starts[g + 1], C, c);
  joined[i] = r.value;
  if constexpr (R<T>::LOCATES) joined_at[i] = r.at;
}

// One thread per (segment n * K + k, channel). Sums are divided by `counts` where that is not null.
template <class T, template <class> class R>
__global__ void __launch_bounds__(256) pool_pieces(
    const typename Element<T>::Acc* __restrict__ part, const int* __restrict__ part_at, const int* __restrict__ starts,
    const int* __restrict__ counts, T* __restrict__ out, i64* __restrict__ where, int groups, int C, int K) {
  typedef typename Element<T>::Acc Acc;
  const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= i64(groups) * C) return;
  const int g = int(i / C), c = int(i % C);
  const R<T> r = join_rows<T, R>(part, part_at, starts[g], starts[g + 1], C, c);
  const bool divide = counts && r.value != 0;  // an empty segment has neither sum nor count
  const i64 to = (i64(g / K) * C + c) * K + g % K;
  out[to] = Element<T>::narrow(divide ? r.value / Acc(counts[g]) : r.value);
  if constexpr (R<T>::LOCATES) where[to] = r.at == NOWHERE ? -1 : r.at;
}

// ---- segments -> voxels ----------------------------------------------------------------------------------------

// Grid: (N * P / V / threads, channels / group); a thread takes V voxels of one sample. pooled (N, C, K).
template <class T, int V>
__global__ void __launch_bounds__(256) unpool(
    const T* __restrict__ pooled, const int* __restrict__ segments, const T* __restrict__ base, T* __restrict__ out,
    int packs, int C, int P, int K, int group) {
  const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  const int sample = int(i) / (P / V), p = int(i) % (P / V) * V;
  const Pack<int, V> id = *reinterpret_cast<const Pack<int, V>*>(segments + i64(sample) * P + p);
  const int c0 = int(blockIdx.y) * group, c1 = min(C, c0 + group);
  for (int c = c0; c < c1; c++) {
    const i64 channel = i64(sample) * C + c, to = channel * P + p;
    Pack<T, V> y;
    if (base) y = *reinterpret_cast<const Pack<T, V>*>(base + to);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const bool inside = unsigned(id.at[j]) < unsigned(K);
      const auto value = inside ? widen(pooled[channel * K + id.at[j]]) : 0;
      y.at[j] = Element<T>::narrow(base ? widen(y.at[j]) + value : value);
    }
    *reinterpret_cast<Pack<T, V>*>(out + to) = y;
  }
}

// `width` threads (a power of two) take a voxel, V channels each time. table (N, K, C), base and out (N, P, C).
template <class T, int V>
__global__ void __launch_bounds__(256) unpool_rows(
    const T* __restrict__ table, const int* __restrict__ segments, const T* __restrict__ base, T* __restrict__ out,
    int voxels, int C, int P, int K, int width) {
  const i64 i = i64(blockIdx.x) * (blockDim.x / width) + threadIdx.x / width;
  if (i >= voxels) return;
  const int id = segments[i];
  const bool inside = unsigned(id) < unsigned(K);
  const T* row = table + (i64(int(i) / P) * K + (inside ? id : 0)) * C;
  for (int c = int(threadIdx.x) % width * V; c < C; c += width * V) {
    Pack<T, V> value, y;
    if (inside) value = *reinterpret_cast<const Pack<T, V>*>(row + c);
    if (base) y = *reinterpret_cast<const Pack<T, V>*>(base + i * C + c);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const auto v = inside ? widen(value.at[j]) : 0;
      y.at[j] = Element<T>::narrow(base ? widen(y.at[j]) + v : v);
    }
    *reinterpret_cast<Pack<T, V>*>(out + i * C + c) = y;
  }
}

// The gradient of the maximum, into zeros: no two values meet, as a voxel has one segment. One thread per value.
template <class T>
__global__ void __launch_bounds__(256) scatter(
    const T* __restrict__ pooled, const i64* __restrict__ argmax, T* __restrict__ out, i64 values, int C, int K, i64 P,
    i64 channel_stride, i64 voxel_stride) {
  const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= values) return;
  const i64 at = argmax[i], channel = i / K;
  if (at < 0 || at >= P) return;
  out[channel / C * C * P + channel % C * channel_stride + at * voxel_stride] = pooled[i];
}
