// GELU after a bias in one pass, both forms, and the gradient.
#include "common.cuh"

#define SQRT_HALF 0.70710678118654752f
#define INV_SQRT_2PI 0.39894228040143268f
#define TANH_SCALE 0.79788456080286536f
#define TANH_CUBE 0.044715f

__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * SQRT_HALF)); }

__device__ inline float gelu_slope(float x) {
  return 0.5f * (1.0f + erff(x * SQRT_HALF)) + x * INV_SQRT_2PI * expf(-0.5f * x * x);
}

// ½ (1 + tanh u) = 1 / (1 + exp(-2 u)), u = √(2/π) (x + 0.044715 x³): one exponential, no tanh
__device__ inline float tanh_gate(float x) {
  return 1.0f / (1.0f + expf(-2.0f * TANH_SCALE * (x + TANH_CUBE * x * x * x)));
}

__device__ inline float gelu_tanh(float x) { return x * tanh_gate(x); }

__device__ inline float gelu_tanh_slope(float x) {
  float s = tanh_gate(x);
  float rest = s * (1.0f - s);  // zero long before x³ overflows: select, do not multiply
  float inner = 2.0f * TANH_SCALE * (1.0f + 3.0f * TANH_CUBE * x * x);
  return s + (rest == 0.0f ? 0.0f : x * rest * inner);
}

// h = x + bias, y = gelu(h). Without a bias (width 0) h is not written; h may be x itself. The
// width is a multiple of eight or zero, so that eight neighbours lie in one row.
extern "C" __global__ void bias_gelu_forward(const scalar *x, const scalar *bias, scalar *h,
                                             scalar *y, long long n, int width, int tanh_form) {
  long long step = 8LL * gridDim.x * blockDim.x;
  for (long long i = 8 * ((long long)blockIdx.x * blockDim.x + threadIdx.x); i < n; i += step) {
    float v[8], b[8];
    load_octet(x + i, n - i, v);
    if (width) {
      load_octet(bias + i % width, 8, b);
      for (int k = 0; k < 8; ++k) v[k] = (float)(scalar)(v[k] + b[k]);  // what backward will read
      store_octet(h + i, n - i, v);
    }
    for (int k = 0; k < 8; ++k) v[k] = tanh_form ? gelu_tanh(v[k]) : gelu(v[k]);
    store_octet(y + i, n - i, v);
  }
}

// dh = dy gelu'(h), and y = gelu(h) again where it is wanted; dh may be dy itself.
extern "C" __global__ void gelu_backward(const scalar *dy, const scalar *h, scalar *dh, scalar *y,
                                         long long n, int tanh_form) {
  long long step = 8LL * gridDim.x * blockDim.x;
  for (long long i = 8 * ((long long)blockIdx.x * blockDim.x + threadIdx.x); i < n; i += step) {
    float v[8], d[8];
    load_octet(h + i, n - i, v);
    load_octet(dy + i, n - i, d);
    for (int k = 0; k < 8; ++k) d[k] *= tanh_form ? gelu_tanh_slope(v[k]) : gelu_slope(v[k]);
    store_octet(dh + i, n - i, d);
    if (y) {
      for (int k = 0; k < 8; ++k) v[k] = tanh_form ? gelu_tanh(v[k]) : gelu(v[k]);
      store_octet(y + i, n - i, v);
    }
  }
}
