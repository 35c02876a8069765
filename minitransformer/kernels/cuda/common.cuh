// What every kernel here shares: the storage type, and sums over a warp or a block.
//
// `scalar` is the type in memory (-DSCALAR=float, __half or __nv_bfloat16, whose headers the
// loader includes); all arithmetic is float32.
// One team of threads works on one row, so sums have a fixed order and repeats are bit-equal.
#pragma once

#ifndef SCALAR
#define SCALAR float
#endif
typedef SCALAR scalar;
typedef scalar strided;  // where a kernel takes the strides along, and rows need not be neighbours

#ifndef INFINITY  // NVRTC has no <math.h>
#define INFINITY __int_as_float(0x7f800000)
#endif

#ifdef __CUDACC__  // memory of a block whose size the launch gives
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#endif

#define WARP 32
#define FULL 0xffffffffu

__device__ inline float load(const scalar *p, long long i) { return (float)p[i]; }
__device__ inline void store(scalar *p, long long i, float value) { p[i] = (scalar)value; }

// N neighbouring numbers, up to 16 bytes, that travel in one instruction where they are aligned.
template <typename T, int N> struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

template <typename T, int N> __device__ inline bool aligned(const T *p) {
  return (unsigned long long)p % sizeof(Pack<T, N>) == 0;
}

// v = p[0 ... N - 1], as far as there are `left`; the rest keeps its value.
template <int N, typename T> __device__ inline void load_pack(const T *p, long long left, float (&v)[N]) {
  if (left >= N && aligned<T, N>(p)) {
    Pack<T, N> pack = *(const Pack<T, N> *)p;
    for (int k = 0; k < N; ++k) v[k] = (float)pack.at[k];
  } else {
    for (int k = 0; k < N; ++k)
      if (k < left) v[k] = (float)p[k];
  }
}

template <int N, typename T> __device__ inline void store_pack(T *p, long long left, const float (&v)[N]) {
  if (left >= N && aligned<T, N>(p)) {
    Pack<T, N> pack;
    for (int k = 0; k < N; ++k) pack.at[k] = (T)v[k];
    *(Pack<T, N> *)p = pack;
  } else {
    for (int k = 0; k < N; ++k)
      if (k < left) p[k] = (T)v[k];
  }
}

#define LANES (16 / (int)sizeof(scalar))  // numbers of `scalar` in 16 bytes

// Eight numbers in 16-byte loads, what a thread of an elementwise kernel treats at a time.
__device__ inline void load_octet(const scalar *p, long long left, float (&v)[8]) {
  for (int k = 0; k < 8; k += LANES) load_pack(p + k, left - k, *(float (*)[LANES])(v + k));
}

__device__ inline void store_octet(scalar *p, long long left, const float (&v)[8]) {
  for (int k = 0; k < 8; k += LANES) store_pack(p + k, left - k, *(const float (*)[LANES])(v + k));
}

__device__ inline float warp_sum(float v) {
  for (int offset = WARP / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL, v, offset);
  return v;
}

__device__ inline float warp_max(float v) {
  for (int offset = WARP / 2; offset > 0; offset /= 2)
    v = fmaxf(v, __shfl_xor_sync(FULL, v, offset));
  return v;
}

// Sum (or maximum) over the block, returned to every thread; `slots` has room for 32 floats.
__device__ inline float block_sum(float v, float *slots) {
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  v = warp_sum(v);
  __syncthreads();  // the slots may still be read from the sum before
  if (lane == 0) slots[warp] = v;
  __syncthreads();
  float total = 0.0f;
  for (int i = 0; i < warps; ++i) total += slots[i];
  return total;
}

__device__ inline float block_max(float v, float *slots) {
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  v = warp_max(v);
  __syncthreads();
  if (lane == 0) slots[warp] = v;
  __syncthreads();
  float top = slots[0];
  for (int i = 1; i < warps; ++i) top = fmaxf(top, slots[i]);
  return top;
}
