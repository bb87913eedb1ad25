// SLIC and its connected components, with the rules and the bits of the CPU kernels. One text for NVRTC and, in the
// tests, for a C++ compiler.
//
// A block takes a part of one cell of the grid, whose voxels all have the same candidates: the centres of the 27 cells
// around. Scores are rounded operation by operation, in the order of the CPU kernels. All that threads add up is
// integers, so that their order is free. Voxels are counted in 32 bits.

typedef long long i64;
typedef unsigned long long u64;
constexpr unsigned FULL = 0xffffffffu;
constexpr int VOXELS = 4;       // that a thread compares with a centre at a time
constexpr int PART = 2048;      // voxels of a cell that one block takes
constexpr int STRETCH = 8;      // voxels in a row that one thread adds up
constexpr int NOBODY = 0x7fffffff;
constexpr float ONE = 65536.f;  // features are multiples of 1 / ONE

#if defined(__CUDA_ARCH__)
#define DYNAMIC_SHARED(T, name) extern __shared__ T name[]
__device__ inline int load(const int* at) { return *(const volatile int*)at; }
#else
inline int load(const int* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
#endif

__device__ inline void add(i64* sum, i64 value) { atomicAdd((u64*)sum, (u64)value); }

// ---- assignment ------------------------------------------------------------------------------------------------

// Assign the voxels of a part of a cell to the nearest centre, and add them to its sums; with `own`, to their own cell.
// Edges of the cells e[0..nz], then of the other axes; centres (K, 3 + C); sums (K, 4 + C): along axes, voxels, features.
// `chosen` (D, H, W) is null where only the sums are wanted. Shared memory: 27 * (9 + 2 * C) words.
template <int C>
__global__ void assign(const float* __restrict__ features, const unsigned char* __restrict__ inside,
                       const int* __restrict__ e, const double* __restrict__ centres, const double* __restrict__ weights,
                       const int* __restrict__ counts, int* __restrict__ chosen, i64* __restrict__ sums, int nz, int ny,
                       int nx, int D, int H, int W, int parts, int own) {
  constexpr int ROW = 4 + C;
  DYNAMIC_SHARED(int, shared);
  float* rows = (float*)shared;        // [27][ROW]: score at the cell's origin, slopes along axes and features
  int* sum = shared + 27 * ROW;        // [27][ROW]: sums relative to the cell's origin
  int* ids = sum + 27 * ROW;           // [27]
  const int cell = blockIdx.x / parts, part = blockIdx.x % parts, tid = threadIdx.x;
  const int cx = cell % nx, cy = cell / nx % ny, cz = cell / (nx * ny);
  const int *ez = e, *ey = e + nz + 1, *ex = ey + ny + 1;
  const int oz = ez[cz], oy = ey[cy], ox = ex[cx];
  const int lz = ez[cz + 1] - oz, ly = ey[cy + 1] - oy, lx = ex[cx + 1] - ox;
  const int volume = lz * ly * lx, start = part * PART;
  if (start >= volume) return;
  const int stop = min(volume, start + PART);

  int found = 1;
  if (own) {
    if (tid == 0) ids[0] = cell;
  } else {
    if (tid < 32) {
      const int gz = cz + tid / 9 - 1, gy = cy + tid / 3 % 3 - 1, gx = cx + tid % 3 - 1;
      const int k = (gz * ny + gy) * nx + gx;
      const bool there = tid < 27 && gz >= 0 && gz < nz && gy >= 0 && gy < ny && gx >= 0 && gx < nx && counts[k] > 0;
      const unsigned all = __ballot_sync(FULL, there);
      if (there) {
        const int at = __popc(all & ((1u << tid) - 1));
        const double* centre = centres + i64(k) * (3 + C);
        const double origin[3] = {double(oz), double(oy), double(ox)};
        double norm = 0;
        for (int a = 0; a < 3; a++) {
          const double near = __dadd_rn(centre[a], -origin[a]);
          norm = __dadd_rn(norm, __dmul_rn(__dmul_rn(weights[a], near), near));
          rows[at * ROW + 1 + a] = float(__dmul_rn(-2.0 * weights[a], near));
        }
        for (int c = 0; c < C; c++) {
          const double value = centre[3 + c];
          norm = __dadd_rn(norm, __dmul_rn(__dmul_rn(weights[3], value), value));
          rows[at * ROW + 4 + c] = float(__dmul_rn(-2.0 * weights[3], value));
        }
        rows[at * ROW] = float(norm);
        ids[at] = k;
      }
      if (tid == 0) ids[27] = __popc(all);
    }
    __syncthreads();
    found = ids[27];
  }
  for (int i = tid; i < found * ROW; i += blockDim.x) sum[i] = 0;
  __syncthreads();

  const i64 plane = i64(D) * H * W;
  for (int first = start; first < stop; first += VOXELS * blockDim.x) {
    float z[VOXELS], y[VOXELS], x[VOXELS], value[VOXELS][C], best[VOXELS];
    int at[VOXELS], nearest[VOXELS];
    bool in[VOXELS];
#pragma unroll
    for (int j = 0; j < VOXELS; j++) {
      const int i = first + j * blockDim.x + tid;
      const int row = i / lx, vx = i - row * lx, vz = row / ly, vy = row - vz * ly;
      at[j] = i < stop ? ((oz + vz) * H + oy + vy) * W + ox + vx : -1;
      in[j] = i < stop && inside[at[j]];
      z[j] = float(vz);
      y[j] = float(vy);
      x[j] = float(vx);
      for (int c = 0; c < C; c++) value[j][c] = in[j] ? features[c * plane + at[j]] : 0.f;
      best[j] = __int_as_float(0x7f800000);
      nearest[j] = -1;
    }
    for (int k = 0; k < (own ? 0 : found); k++) {
      const float* row = rows + k * ROW;
      float slope[ROW];
      for (int q = 0; q < ROW; q++) slope[q] = row[q];
#pragma unroll
      for (int j = 0; j < VOXELS; j++) {
        float score = __fadd_rn(slope[0], __fmul_rn(slope[1], z[j]));
        score = __fadd_rn(score, __fmul_rn(slope[2], y[j]));
        score = __fadd_rn(score, __fmul_rn(slope[3], x[j]));
        for (int c = 0; c < C; c++) score = __fadd_rn(score, __fmul_rn(slope[4 + c], value[j][c]));
        if (score < best[j]) {
          best[j] = score;
          nearest[j] = k;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < VOXELS; j++) {
      if (at[j] < 0) continue;
      int k = nearest[j];
      // no centre is nearer than infinitely far: a voxel stays in its own cell
      for (int s = 0; k < 0; s++) if (ids[s] == cell || !in[j]) k = s;
      if (chosen) chosen[at[j]] = in[j] ? ids[k] : -1;
      if (!in[j]) continue;
      atomicAdd(sum + k * ROW, int(z[j]));
      atomicAdd(sum + k * ROW + 1, int(y[j]));
      atomicAdd(sum + k * ROW + 2, int(x[j]));
      atomicAdd(sum + k * ROW + 3, 1);
      for (int c = 0; c < C; c++) atomicAdd(sum + k * ROW + 4 + c, int(value[j][c] * ONE));
    }
  }
  __syncthreads();
  for (int i = tid; i < found * ROW; i += blockDim.x) {
    const int k = i / ROW, q = i % ROW, voxels = sum[k * ROW + 3];
    if (!voxels) continue;
    const i64 origin = q == 0 ? oz : q == 1 ? oy : q == 2 ? ox : 0;
    add(sums + i64(ids[k]) * ROW + q, sum[i] + origin * voxels);
  }
}

// Move every centre that has voxels to their mean, and set the sums back to 0. With `counts`, note the voxels there.
template <int C>
__global__ void move(double* __restrict__ centres, i64* __restrict__ sums, int* __restrict__ counts, int K) {
  const int k = blockIdx.x * blockDim.x + threadIdx.x;
  if (k >= K) return;
  i64* sum = sums + i64(k) * (4 + C);
  double* centre = centres + i64(k) * (3 + C);
  const double voxels = double(sum[3]);
  if (counts) counts[k] = int(sum[3]);
  if (voxels > 0) {
    for (int a = 0; a < 3; a++) centre[a] = double(sum[a]) / voxels;
    for (int c = 0; c < C; c++) centre[3 + c] = double(sum[4 + c]) / double(ONE) / voxels;
  }
  for (int q = 0; q < 4 + C; q++) sum[q] = 0;
}

// Scale a channel to multiples of 1 / ONE, as low becomes 0 and high 1; 0 outside the mask. limits: low, high.
__global__ void scale(const double* __restrict__ values, const unsigned char* __restrict__ inside,
                      const double* __restrict__ limits, float* __restrict__ out, i64 size) {
  const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size) return;
  const double low = limits[0], high = limits[1];
  float scaled = 0.f;
  if (inside[i] && low < high) {
    const double value = __dadd_rn(values[i], -low) / __dadd_rn(high, -low);
    scaled = float(rint(min(max(value, -1.0), 2.0) * double(ONE)) / double(ONE));
  }
  out[i] = scaled;
}

// Count the cells of grids that touch a mask. summed (D, H, W): voxels of the mask up to and with this one, along every
// axis. A grid is its number of cells along three axes, and where its edges start in `edges`, as for `assign`.
__global__ void count_cells(const int* __restrict__ summed, const int* __restrict__ grids, const int* __restrict__ edges,
                            int* __restrict__ counts, int H, int W) {
  const int* grid = grids + 4 * blockIdx.y;
  const int nz = grid[0], ny = grid[1], nx = grid[2], i = blockIdx.x * blockDim.x + threadIdx.x;
  bool touched = false;
  if (i < nz * ny * nx) {
    const int *ez = edges + grid[3], *ey = ez + nz + 1, *ex = ey + ny + 1;
    const int cx = i % nx, cy = i / nx % ny, cz = i / (nx * ny);
    int inside = 0;
    for (int corner = 0; corner < 8; corner++) {
      const int z = ez[cz + (corner >> 2)] - 1, y = ey[cy + (corner >> 1 & 1)] - 1, x = ex[cx + (corner & 1)] - 1;
      const int sum = z < 0 || y < 0 || x < 0 ? 0 : summed[(z * H + y) * W + x];
      inside += __popc(corner) & 1 ? sum : -sum;
    }
    touched = inside != 0;
  }
  const unsigned votes = __ballot_sync(FULL, touched);
  if ((threadIdx.x & 31) == 0 && votes) atomicAdd(counts + blockIdx.y, __popc(votes));
}

// ---- connected components: parents[i] is a voxel of the same component, itself at the root ---------------------

__device__ inline int find(const int* parents, int a) {
  for (int up = load(parents + a); up != a; up = load(parents + a)) a = up;
  return a;
}

// The lower index stays the root, so that roots are the first voxels of their components.
__device__ inline void join(int* parents, int a, int b) {
  a = find(parents, a);
  b = find(parents, b);
  while (a != b) {
    const int low = min(a, b), high = max(a, b);
    const int before = atomicMin(parents + high, low);
    if (before == high) return;
    // another thread gave that root a parent first: it is to be joined with `low` too
    a = find(parents, before);
    b = find(parents, low);
  }
}

// Let every voxel point to the first of its run among the 32 of its warp; -1 outside.
__global__ void runs(const int* __restrict__ ids, int* __restrict__ parents, int size, int W) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
  const int id = i < size ? ids[i] : -1;
  const bool head = lane == 0 || i >= size || i % W == 0 || ids[i - 1] != id;
  const unsigned heads = __ballot_sync(FULL, head) & (FULL >> (31 - lane));
  if (i < size) parents[i] = id < 0 ? -1 : i - lane + 31 - __clz(int(heads));
}

// Join the runs that touch, at the first voxel where they do.
__global__ void join_runs(const int* __restrict__ ids, int* __restrict__ parents, int size, int H, int W) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  const int id = ids[i], x = i % W, y = i / W % H;
  if (id < 0) return;
  const bool left = x > 0 && ids[i - 1] == id;
  if (left && i % 32 == 0) join(parents, i - 1, i);
  const bool first = !left || i % 32 == 0;
  if (y > 0 && ids[i - W] == id && (first || ids[i - W - 1] != id)) join(parents, i - W, i);
  const int below = H * W;
  if (i >= below && ids[i - below] == id && (first || ids[i - below - 1] != id)) join(parents, i - below, i);
}

// Let every voxel point to its root; mark the roots.
__global__ void flatten(int* __restrict__ parents, unsigned char* __restrict__ root, int size) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  const int up = load(parents + i);
  root[i] = up == i;
  if (up < 0) return;
  const int top = find(parents, up);
  // another thread may follow this entry meanwhile: before and after it leads to the same root
  atomicMin(parents + i, top);
}

// ids[i] becomes table[ids[i]], -1 stays. With `sizes`, count the voxels of each; sums (K, C) of the features * ONE.
template <int C>
__global__ void renumber(int* __restrict__ ids, const int* __restrict__ table, const float* __restrict__ features,
                         i64* __restrict__ sizes, i64* __restrict__ sums, int size) {
  const i64 start = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * STRETCH;
  int current = -1, voxels = 0;
  i64 sum[C] = {};
  for (i64 i = start; i < min(i64(size), start + STRETCH); i++) {
    const int id = ids[i] < 0 ? -1 : table[ids[i]];
    ids[i] = id;
    if (!sizes) continue;
    if (id != current) {
      if (current >= 0) {
        add(sizes + current, voxels);
        for (int c = 0; c < C; c++) add(sums + i64(current) * C + c, sum[c]);
      }
      current = id;
      voxels = 0;
      for (int c = 0; c < C; c++) sum[c] = 0;
    }
    voxels++;
    if (id >= 0) for (int c = 0; c < C; c++) sum[c] += int(features[i64(c) * size + i] * ONE);
  }
  if (sizes && current >= 0) {
    add(sizes + current, voxels);
    for (int c = 0; c < C; c++) add(sums + i64(current) * C + c, sum[c]);
  }
}

// ---- merging: groups[a] is the lowest component of a's group, the root, where sizes, sums and means of all are -----

// Prepare a round: mark the groups of less than `limit` voxels.
template <int C>
__global__ void start_round(const int* __restrict__ groups, const i64* __restrict__ sizes, const i64* __restrict__ sums,
                            double limit, double* __restrict__ means, u64* __restrict__ nearest,
                            int* __restrict__ targets, unsigned char* __restrict__ marked, int K) {
  const int a = blockIdx.x * blockDim.x + threadIdx.x;
  if (a >= K) return;
  marked[a] = groups[a] == a && double(sizes[a]) < limit;
  for (int c = 0; c < C; c++) means[i64(a) * C + c] = double(sums[i64(a) * C + c]) / double(ONE) / double(sizes[a]);
  nearest[a] = ~0ull;
  targets[a] = NOBODY;
}

// Look from every voxel of a marked group at the groups beyond its faces. First find the least distance of means, whose
// bits order as numbers do; then, with `choose`, the lowest group at that distance.
template <int C>
__global__ void look_around(const int* __restrict__ ids, const int* __restrict__ groups,
                            const unsigned char* __restrict__ marked, const double* __restrict__ means,
                            u64* __restrict__ nearest, int* __restrict__ targets, int choose, int D, int H, int W) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= D * H * W || ids[i] < 0) return;
  const int a = groups[ids[i]];
  if (!marked[a]) return;
  const int x = i % W, y = i / W % H, z = i / (W * H);
  u64 least = ~0ull;
  int target = NOBODY;
#pragma unroll
  for (int s = 0; s < 6; s++) {
    const bool there = s == 0 ? z > 0 : s == 1 ? z < D - 1 : s == 2 ? y > 0 : s == 3 ? y < H - 1 : s == 4 ? x > 0 : x < W - 1;
    const int step = (s < 2 ? H * W : s < 4 ? W : 1) * (s % 2 ? 1 : -1);
    const int id = there ? ids[i + step] : -1;
    if (id < 0) continue;
    const int b = groups[id];
    if (b == a) continue;
    double distance = 0;
    for (int c = 0; c < C; c++) {
      const double d = __dadd_rn(means[i64(a) * C + c], -means[i64(b) * C + c]);
      distance = __dadd_rn(distance, __dmul_rn(d, d));
    }
    const u64 bits = u64(__double_as_longlong(distance));
    if (bits < least || (bits == least && b < target)) {
      least = bits;
      target = b;
    }
  }
  if (target == NOBODY) return;
  if (!choose) atomicMin(nearest + a, least);
  else if (least == nearest[a]) atomicMin(targets + a, target);
}

__global__ void join_groups(int* __restrict__ groups, const unsigned char* __restrict__ marked,
                            const int* __restrict__ targets, int K) {
  const int a = blockIdx.x * blockDim.x + threadIdx.x;
  if (a < K && marked[a] && targets[a] != NOBODY) join(groups, a, targets[a]);
}

// Let every component point to its root again, and add groups that are no longer there to what they joined.
template <int C>
__global__ void end_round(int* __restrict__ groups, unsigned char* __restrict__ root, i64* __restrict__ sizes,
                          i64* __restrict__ sums, int* __restrict__ joined, int K) {
  const int a = blockIdx.x * blockDim.x + threadIdx.x;
  if (a >= K) return;
  const int top = find(groups, a);
  if (top == a) return;
  atomicMin(groups + a, top);
  if (!root[a]) return;
  root[a] = 0;
  atomicAdd(joined, 1);
  add(sizes + top, sizes[a]);
  for (int c = 0; c < C; c++) add(sums + i64(top) * C + c, sums[i64(a) * C + c]);
}
