// Dropout. One thread draws one counter, eight 32-bit numbers, and treats eight elements.
#include "common.cuh"
#include "philox.cuh"

extern "C" __global__ void random_bits(unsigned *bits, long long n, u64 first, u64 step,
                                       u64 operation, u64 seed) {
  long long stride = (long long)gridDim.x * blockDim.x;
  for (long long j = (long long)blockIdx.x * blockDim.x + threadIdx.x; 8 * j < n; j += stride) {
    u64 words[4];
    philox(first + j + 1, step, operation, seed, words);
    for (int k = 0; k < 8; ++k)
      if (8 * j + k < n) bits[8 * j + k] = number(words, k);
  }
}

// y = residual + x keep / (1 - p); residual may be null.
extern "C" __global__ void residual_dropout(const scalar *x, const scalar *residual, scalar *y,
                                            long long n, unsigned threshold, float scale, u64 step,
                                            u64 operation, u64 seed) {
  long long stride = (long long)gridDim.x * blockDim.x;
  for (long long j = (long long)blockIdx.x * blockDim.x + threadIdx.x; 8 * j < n; j += stride) {
    float value[8], sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    load_octet(x + 8 * j, n - 8 * j, value);
    if (residual) load_octet(residual + 8 * j, n - 8 * j, sum);
    u64 words[4];
    philox(j + 1, step, operation, seed, words);  // while the numbers are on their way
    for (int k = 0; k < 8; ++k) sum[k] += number(words, k) >= threshold ? value[k] * scale : 0.0f;
    store_octet(y + 8 * j, n - 8 * j, sum);
  }
}
