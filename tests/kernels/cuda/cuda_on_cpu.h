// Run CUDA kernels, unchanged, on the host. For tests: it is exact, not fast.
//
// Blocks run one after another; each CUDA thread is a fiber, so that __syncthreads and the warp collectives really
// suspend and resume. Blocks and fibers are taken in a random order that a seed decides: a result that depends on the
// order of threads differs between seeds. What a GPU would leave undefined is an error here: a barrier that some
// threads never reach, a mask that names an exited lane, a launch beyond the limits of every GPU. Shared memory has the
// exact size asked for and starts poisoned. Built with -fsanitize=thread every fiber is a thread of its own to
// ThreadSanitizer, so that races between CUDA threads are reported though nothing runs in parallel; built with
// -fsanitize=address accesses out of bounds are.
#pragma once
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#include <sys/mman.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 { unsigned x = 1, y = 1, z = 1; };

template <class To, class From> To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// the scheduler is kept out of ThreadSanitizer's sight: only kernels are judged
#define UNSEEN __attribute__((noinline, no_sanitize("thread")))

namespace on_cpu {

constexpr size_t STACK = 64 << 10;
enum Wait { RUNS, AT_BARRIER, IN_WARP };
enum Collective { SYNCWARP, SHUFFLE, SHUFFLE_XOR, BALLOT, REDUCE_MAX, REDUCE_MIN };

struct Fiber {
  ucontext_t context;
  jmp_buf resume_at;
  bool started = false, done = false;
  Wait wait = RUNS;
  dim3 thread;
  unsigned rank = 0;
  unsigned mask = 0;  // of the collective it waits in, and what it brought there and took away
  Collective op = SYNCWARP;
  uint64_t in = 0, out[32];
  char* stack = nullptr;
  void* sanitizer = nullptr;
};

struct Block {
  std::vector<Fiber> fibers;
  char *stacks = nullptr, *shared = nullptr;
  size_t stacks_size = 0, shared_size = 0;
  ucontext_t scheduler;
  jmp_buf scheduler_at;
  void (*kernel)(void**) = nullptr;
  void** args = nullptr;
  unsigned live = 0, waiting = 0;
  char barrier_token;
  void* sanitizer = nullptr;
  const void* stack_bottom = nullptr;
  size_t stack_size = 0;
};

inline Block block;
inline Fiber* self = nullptr;
inline dim3 thread_index, block_index, block_size, grid_size;
inline char end_token, error[256];
inline uint64_t random_state = 0;

UNSEEN inline unsigned random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return unsigned(random_state >> 33);
}

template <class T> UNSEEN void shuffle(std::vector<T>& v) {
  for (size_t i = v.size(); i > 1; i--) std::swap(v[i - 1], v[random() % i]);
}

// Under ThreadSanitizer each block gets pages of its own, else it would seem to race with the block before.
UNSEEN inline void renew(char*& memory, size_t& size, size_t wanted) {
#if defined(__SANITIZE_THREAD__)
  if (memory) munmap(memory, size);
  memory = static_cast<char*>(mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
#else
  free(memory);
  memory = static_cast<char*>(malloc(wanted));
#endif
  size = wanted;
}

// ---- switching between the scheduler and the fibers ------------------------------------------------------------

UNSEEN inline void resume(Fiber& f) {
  self = &f;
  thread_index = f.thread;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(f.sanitizer, __tsan_switch_to_fiber_no_sync);
  swapcontext(&block.scheduler, &f.context);
#elif defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&block.sanitizer, f.stack, STACK);
  swapcontext(&block.scheduler, &f.context);
  __sanitizer_finish_switch_fiber(block.sanitizer, nullptr, nullptr);
#else
  if (_setjmp(block.scheduler_at) == 0) {
    if (f.started) _longjmp(f.resume_at, 1);
    f.started = true;
    setcontext(&f.context);
  }
#endif
}

UNSEEN inline void suspend() {
  Fiber* f = self;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(block.sanitizer, __tsan_switch_to_fiber_no_sync);
  swapcontext(&f->context, &block.scheduler);
#elif defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(f->done ? nullptr : &f->sanitizer, block.stack_bottom, block.stack_size);
  swapcontext(&f->context, &block.scheduler);
  __sanitizer_finish_switch_fiber(f->sanitizer, nullptr, nullptr);
#else
  if (_setjmp(f->resume_at) == 0) _longjmp(block.scheduler_at, 1);
#endif
}

UNSEEN inline void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &block.stack_bottom, &block.stack_size);
#endif
  try {
    block.kernel(block.args);
  } catch (const std::exception& e) {
    if (!error[0]) snprintf(error, sizeof error, "%s (thread %u, block %u)", e.what(), self->rank, block_index.x);
  }
#if defined(__SANITIZE_THREAD__)
  __tsan_release(&end_token);
#endif
  self->done = true;
  block.live--;
  suspend();
  abort();
}

// ---- what the threads of a block do together -------------------------------------------------------------------

UNSEEN inline void barrier() {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(&block.barrier_token);
#endif
  block.waiting++;
  self->wait = AT_BARRIER;
  suspend();
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(&block.barrier_token);
#endif
}

// All lanes of the mask meet here; the result holds what lane l brought at [l]. Only __syncwarp orders memory.
UNSEEN inline const uint64_t* meet(unsigned mask, Collective op, uint64_t value) {
  Fiber* f = self;
  const unsigned lane = f->rank & 31;
  Fiber* warp = &block.fibers[f->rank & ~31u];
  if (!(mask >> lane & 1)) throw std::runtime_error("warp collective: the calling lane is not in its mask");
  f->mask = mask;
  f->op = op;
  f->in = value;
  f->wait = IN_WARP;
#if defined(__SANITIZE_THREAD__)
  if (op == SYNCWARP) __tsan_release(&f->mask);
#endif
  bool all = true;
  for (unsigned l = 0; l < 32; l++)
    if (mask >> l & 1) {
      if ((f->rank & ~31u) + l >= block.fibers.size() || warp[l].done)
        throw std::runtime_error("warp collective: the mask names a lane that has exited or does not exist");
      all &= warp[l].wait == IN_WARP && warp[l].mask == mask && warp[l].op == op;
    }
  if (all)
    for (unsigned l = 0; l < 32; l++)
      if (mask >> l & 1) {
        for (unsigned k = 0; k < 32; k++) warp[l].out[k] = mask >> k & 1 ? warp[k].in : 0xDEADBEEFDEADBEEFull;
        warp[l].wait = RUNS;
      }
  while (f->wait == IN_WARP) suspend();
#if defined(__SANITIZE_THREAD__)
  for (unsigned l = 0; l < 32; l++)
    if (mask >> l & 1 && op == SYNCWARP) __tsan_acquire(&warp[l].mask);
#endif
  return f->out;
}

// ---- launching -------------------------------------------------------------------------------------------------

template <class K> struct Signature;
template <class... A> struct Signature<void (*)(A...)> {
  template <size_t... I> UNSEEN static void call(void (*k)(A...), void** args, std::index_sequence<I...>) {
    k(*static_cast<std::remove_reference_t<A>*>(args[I])...);
  }
  static constexpr unsigned count = sizeof...(A);
};

template <auto K> UNSEEN void call(void** args) {
  typedef Signature<decltype(K)> S;
  S::call(K, args, std::make_index_sequence<S::count>{});
}

UNSEEN inline void start_fibers(unsigned threads) {
  if (block.fibers.size() != threads) block.fibers = std::vector<Fiber>(threads);
#if !defined(__SANITIZE_THREAD__)
  if (block.stacks_size < threads * STACK)
#endif
    renew(block.stacks, block.stacks_size, threads * STACK);
#if defined(__SANITIZE_THREAD__)
  block.sanitizer = __tsan_get_current_fiber();
#endif
  for (unsigned i = 0; i < threads; i++) {
    Fiber& f = block.fibers[i];
    f.done = f.started = false;
    f.wait = RUNS;
    f.rank = i;
    f.thread = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
    f.stack = block.stacks + i * STACK;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, reinterpret_cast<void (*)()>(run_thread), 0);
#if defined(__SANITIZE_THREAD__)
    f.sanitizer = __tsan_create_fiber(0);
#endif
  }
  block.live = threads;
  block.waiting = 0;
}

UNSEEN inline void run_block(size_t shared) {
  const unsigned threads = block_size.x * block_size.y * block_size.z;
  renew(block.shared, block.shared_size, shared ? shared : 1);
  memset(block.shared, 0xFF, block.shared_size);
  start_fibers(threads);
  std::vector<unsigned> order(threads);
  for (unsigned i = 0; i < threads; i++) order[i] = i;
  while (block.live && !error[0]) {
    shuffle(order);
    bool progress = false;
    for (unsigned i : order) {
      Fiber& f = block.fibers[i];
      if (f.done || f.wait != RUNS || error[0]) continue;
      resume(f);
      progress = true;
    }
    if (block.waiting == threads) {
      block.waiting = 0;
      progress = true;
      for (Fiber& f : block.fibers) f.wait = RUNS;
    }
    if (!progress && !error[0])
      snprintf(error, sizeof error, "deadlock in block %u: %u of %u threads wait in __syncthreads, %u are live",
               block_index.x, block.waiting, threads, block.live);
  }
#if defined(__SANITIZE_THREAD__)
  for (Fiber& f : block.fibers) __tsan_destroy_fiber(f.sanitizer);
#endif
}

// Run a kernel; returns nullptr, or what went wrong.
template <auto K>
UNSEEN const char* launch(const unsigned* grid, const unsigned* size, size_t shared, void** args, unsigned count, uint64_t seed) {
  error[0] = 0;
  if (count != Signature<decltype(K)>::count) return "the number of arguments is wrong";
  const uint64_t threads = uint64_t(size[0]) * size[1] * size[2];
  const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
  if (!blocks || grid[0] > 0x7fffffff || grid[1] > 65535 || grid[2] > 65535) return "the grid is out of limits";
  if (!threads || threads > 1024 || size[2] > 64) return "the block is out of limits";
  if (shared > 48 << 10) return "more shared memory than every GPU has";
  grid_size = {grid[0], grid[1], grid[2]};
  block_size = {size[0], size[1], size[2]};
  block.kernel = call<K>;
  block.args = args;
  random_state = (seed + 1) * 0x9E3779B97F4A7C15ull;
  std::vector<uint64_t> order(blocks);
  for (uint64_t i = 0; i < blocks; i++) order[i] = i;
  shuffle(order);
  for (uint64_t i : order) {
    block_index = {unsigned(i % grid[0]), unsigned(i / grid[0] % grid[1]), unsigned(i / grid[0] / grid[1])};
    run_block(shared);
    if (error[0]) break;
  }
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(&end_token);
#endif
  return error[0] ? error : nullptr;
}

template <class T> uint64_t pack(T v) {
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof v);
  return bits;
}
template <class T> T unpack(uint64_t bits) {
  T v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
template <class T, class F> T fold(unsigned mask, const uint64_t* brought, T v, F better) {
  for (unsigned l = 0; l < 32; l++)
    if (mask >> l & 1) v = better(v, unpack<T>(brought[l]));
  return v;
}

}  // namespace on_cpu

// ---- the part of CUDA's language that our kernels speak --------------------------------------------------------

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define threadIdx (on_cpu::thread_index)
#define blockIdx (on_cpu::block_index)
#define blockDim (on_cpu::block_size)
#define gridDim (on_cpu::grid_size)
#define DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(on_cpu::block.shared)

using std::max;
using std::min;
inline void __syncthreads() { on_cpu::barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { on_cpu::meet(mask, on_cpu::SYNCWARP, 0); }
template <class T> T __shfl_sync(unsigned mask, T v, int lane) {
  return on_cpu::unpack<T>(on_cpu::meet(mask, on_cpu::SHUFFLE, on_cpu::pack(v))[lane & 31]);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int with) {
  const unsigned lane = on_cpu::self->rank & 31;
  return on_cpu::unpack<T>(on_cpu::meet(mask, on_cpu::SHUFFLE_XOR, on_cpu::pack(v))[(lane ^ with) & 31]);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
  const uint64_t* brought = on_cpu::meet(mask, on_cpu::BALLOT, vote != 0);
  unsigned votes = 0;
  for (unsigned l = 0; l < 32; l++) votes |= unsigned(mask >> l & 1 && brought[l]) << l;
  return votes;
}
template <class T> T __reduce_max_sync(unsigned mask, T v) {
  return on_cpu::fold(mask, on_cpu::meet(mask, on_cpu::REDUCE_MAX, on_cpu::pack(v)), v, [](T a, T b) { return max(a, b); });
}
template <class T> T __reduce_min_sync(unsigned mask, T v) {
  return on_cpu::fold(mask, on_cpu::meet(mask, on_cpu::REDUCE_MIN, on_cpu::pack(v)), v, [](T a, T b) { return min(a, b); });
}
template <class T> T atomicAdd(T* at, T value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
template <class T> T atomicMin(T* at, T value) {
  T before = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < before && !__atomic_compare_exchange_n(at, &before, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return before;
}
// the compiler is told not to fuse operations
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __float_as_int(float f) { return bit_cast<int>(f); }
inline float __int_as_float(int i) { return bit_cast<float>(i); }
inline long long __double_as_longlong(double f) { return bit_cast<long long>(f); }
