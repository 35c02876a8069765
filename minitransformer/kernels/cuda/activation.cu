// Bias and GELU in one pass, both forms, and their gradients.
#include "common.cuh"

#define SQRT_HALF 0.70710678118654752f
#define INV_SQRT_2PI 0.39894228040143268f
#define TANH_SCALE 0.79788456080286536f
#define TANH_CUBE 0.044715f

__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * SQRT_HALF)); }

__device__ inline float gelu_slope(float x) {
  return 0.5f * (1.0f + erff(x * SQRT_HALF)) + x * INV_SQRT_2PI * expf(-0.5f * x * x);
}

__device__ inline float gelu_tanh(float x) {
  float u = TANH_SCALE * (x + TANH_CUBE * x * x * x);
  return 0.5f * x * (1.0f + tanhf(u));
}

__device__ inline float gelu_tanh_slope(float x) {
  float t = tanhf(TANH_SCALE * (x + TANH_CUBE * x * x * x));
  float rest = 1.0f - t * t;  // zero long before x³ overflows: select, do not multiply
  float inner = TANH_SCALE * (1.0f + 3.0f * TANH_CUBE * x * x);
  return 0.5f * (1.0f + t) + (rest == 0.0f ? 0.0f : 0.5f * x * rest * inner);
}

// h = x + bias, y = gelu(h); bias may be null and h may be x itself.
extern "C" __global__ void bias_gelu_forward(const scalar *x, const scalar *bias, scalar *h, scalar *y, long long n,
                                             int width, int tanh_form) {
  long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    float v = load(x, i) + (bias ? load(bias, i % width) : 0.0f);
    if (h) store(h, i, v);
    store(y, i, tanh_form ? gelu_tanh(v) : gelu(v));
  }
}

// dh = dy gelu'(h)
extern "C" __global__ void gelu_backward(const scalar *dy, const scalar *h, scalar *dh, long long n,
                                         int tanh_form) {
  long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    float v = load(h, i);
    store(dh, i, load(dy, i) * (tanh_form ? gelu_tanh_slope(v) : gelu_slope(v)));
  }
}
