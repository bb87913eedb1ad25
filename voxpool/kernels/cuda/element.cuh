// What the elements of maps are: stored as T, added up as Acc.

typedef long long i64;
typedef unsigned long long u64;

struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };

#if defined(__CUDA_ARCH__)
__device__ inline float widen(f16 h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
  return f;
}
__device__ inline f16 narrow_f16(float f) {
  f16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(f));
  return h;
}
#else
__device__ inline float widen(f16 h) { return float(bit_cast<_Float16>(h)); }
__device__ inline f16 narrow_f16(float f) { return bit_cast<f16>(_Float16(f)); }
#endif
__device__ inline float widen(bf16 h) { return __int_as_float(int(unsigned(h.bits) << 16)); }
__device__ inline float widen(float f) { return f; }
__device__ inline double widen(double f) { return f; }

template <class T> struct Element;
template <> struct Element<float> {
  typedef float Acc;
  typedef unsigned Key;
  __device__ static float narrow(float f) { return f; }
};
template <> struct Element<double> {
  typedef double Acc;
  typedef u64 Key;
  __device__ static double narrow(double f) { return f; }
};
template <> struct Element<f16> {
  typedef float Acc;
  typedef unsigned Key;
  __device__ static f16 narrow(float f) { return narrow_f16(f); }
};
template <> struct Element<bf16> {
  typedef float Acc;
  typedef unsigned Key;
  __device__ static bf16 narrow(float f) {
    const unsigned bits = unsigned(__float_as_int(f));
    bf16 h;
    h.bits = f != f ? 0x7fc0 : (unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to nearest, ties to even
    return h;
  }
};
