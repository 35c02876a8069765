// An activation after a bias and before a dropout, in one pass; its slope from the same pass.
#include "common.cuh"
#include "philox.cuh"

#define SQRT_HALF 0.70710678118654752f
#define INV_SQRT_2PI 0.39894228040143268f
#define TANH_SCALE 0.79788456080286536f
#define TANH_CUBE 0.044715f

enum { RELU, GELU, GELU_TANH, SILU };

struct Value {
  float y, slope;
};

__device__ inline Value activate(float x, int kind) {
  if (kind == RELU) return {x <= 0.0f ? 0.0f : x, x > 0.0f ? 1.0f : 0.0f};
  if (kind == GELU) {
    float phi = 0.5f * (1.0f + erff(x * SQRT_HALF));
    return {x * phi, phi + x * INV_SQRT_2PI * expf(-0.5f * x * x)};
  }
  // both others are x σ(u): ½ (1 + tanh u) = σ(2 u) spares the tanh
  float u = kind == SILU ? x : 2.0f * TANH_SCALE * (x + TANH_CUBE * x * x * x);
  float inner = kind == SILU ? 1.0f : 2.0f * TANH_SCALE * (1.0f + 3.0f * TANH_CUBE * x * x);
  float s = 1.0f / (1.0f + expf(-u));
  float rest = s * (1.0f - s);  // zero long before x³ overflows: select, do not multiply
  return {x * s, s + (rest == 0.0f ? 0.0f : x * rest * inner)};
}

// h = x + bias, y = act(h), slope = act'(h), both dropped out where there is a threshold. Without
// a bias the width is zero, else a multiple of eight, so that a thread's eight numbers lie in one
// row. The slope may be null, or take the place of x.
extern "C" __global__ void activation_forward(const scalar *x, const float *bias, scalar *slope,
                                              scalar *y, long long n, int width, int kind,
                                              unsigned threshold, float scale, u64 step,
                                              u64 operation, u64 seed) {
  long long stride = (long long)gridDim.x * blockDim.x;
  for (long long j = (long long)blockIdx.x * blockDim.x + threadIdx.x; 8 * j < n; j += stride) {
    float v[8], b[8] = {}, s[8];
    long long i = 8 * j;
    load_octet(x + i, n - i, v);
    if (width)
      for (int k = 0; k < 8; k += 4)
        load_pack(bias + i % width + k, 4, *(float (*)[4])(b + k));
    u64 words[4];
    if (threshold) philox(j + 1, step, operation, seed, words);
    for (int k = 0; k < 8; ++k) {
      Value a = activate(v[k] + b[k], kind);
      float kept = !threshold ? 1.0f : number(words, k) >= threshold ? scale : 0.0f;
      v[k] = kept == 0.0f ? 0.0f : a.y * kept;  // a dropped NaN is a zero
      s[k] = kept == 0.0f ? 0.0f : a.slope * kept;
    }
    if (slope) store_octet(slope + i, n - i, s);
    store_octet(y + i, n - i, v);
  }
}

// dx = dy act'(x)
extern "C" __global__ void activation_backward(const scalar *dy, const scalar *x, scalar *dx,
                                               long long n, int kind) {
  long long step = 8LL * gridDim.x * blockDim.x;
  for (long long i = 8 * ((long long)blockIdx.x * blockDim.x + threadIdx.x); i < n; i += step) {
    float v[8], d[8];
    load_octet(x + i, n - i, v);
    load_octet(dy + i, n - i, d);
    for (int k = 0; k < 8; ++k) d[k] *= activate(v[k], kind).slope;
    store_octet(dx + i, n - i, d);
  }
}
