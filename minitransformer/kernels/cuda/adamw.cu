// AdamW over flat buffers in one launch, and the sum of squares that clipping needs.
#include "common.cuh"

// `decay` is 1 - lr λ; `step_size` is lr / (1 - β₁ᵗ); `root` is √(1 - β₂ᵗ).
extern "C" __global__ void adamw(float *parameter, const scalar *gradient, float *m, float *v,
                                 long long n, float step_size, float root, float beta1,
                                 float beta2, float eps, float decay, const float *clip) {
  float factor = clip ? *clip : 1.0f;
  long long stride = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
    float g = load(gradient, i) * factor;
    float first = m[i] + (1.0f - beta1) * (g - m[i]);
    float second = beta2 * v[i] + (1.0f - beta2) * g * g;
    m[i] = first;
    v[i] = second;
    parameter[i] = parameter[i] * decay - step_size * first / (sqrtf(second) / root + eps);
  }
}

// One partial sum of squares per block; the caller adds the few that there are.
extern "C" __global__ void squares(const scalar *x, float *partial, long long n) {
  __shared__ float slots[WARP];
  long long stride = (long long)gridDim.x * blockDim.x;
  float sum = 0.0f;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
    float v = load(x, i);
    sum += v * v;
  }
  sum = block_sum(sum, slots);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
