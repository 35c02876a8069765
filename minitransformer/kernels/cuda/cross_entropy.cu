// Softmax and cross-entropy against class numbers, one block a row, which is read once forward and
// once backward; probabilities are never stored. A vocabulary of odd size puts rows anywhere:
// packs lie where 16 bytes do, and the first and the last of a row may stick out of it.
#include "common.cuh"

#define LOG2E 1.4426950408889634f

// Where the packs of a row start, at most LANES - 1 numbers before it.
__device__ inline int first_pack(const scalar *row) {
  return -(int)((unsigned long long)row / sizeof(scalar) % LANES);
}

// Numbers i ... i + LANES - 1 of a row; what sticks out of it keeps its value.
__device__ inline void load_span(const scalar *row, int i, int width, float (&v)[LANES]) {
  if (i >= 0) load_pack(row + i, width - i, v);
  else
    for (int k = 0; k < LANES; ++k)
      if (i + k >= 0 && i + k < width) v[k] = load(row, i + k);
}

__device__ inline void store_span(scalar *row, int i, int width, const float (&v)[LANES]) {
  if (i >= 0) store_pack(row + i, width - i, v);
  else
    for (int k = 0; k < LANES; ++k)
      if (i + k >= 0 && i + k < width) store(row, i + k, v[k]);
}

// loss = lse - (x[target] - top) per row, 0 where the target is ignored; lse is the log-sum-exp
// of the logits less their largest, kept apart so that large logits do not round the loss away.
// Largest and sum come from one pass: a sum is scaled down when a larger logit appears.
extern "C" __global__ void cross_entropy_forward(const scalar *logits, const long long *target,
                                                 float *loss, float *top_logit, float *lse, int width,
                                                 long long ignore_index) {
  __shared__ float slots[WARP];
  const scalar *row = logits + (long long)blockIdx.x * width;
  float top = -INFINITY, sum = 0.0f;
#pragma unroll 4
  for (int i = first_pack(row) + (int)threadIdx.x * LANES; i < width; i += blockDim.x * LANES) {
    float v[LANES], larger = top;
    for (int k = 0; k < LANES; ++k) v[k] = -INFINITY;
    load_span(row, i, width, v);
    for (int k = 0; k < LANES; ++k) larger = fmaxf(larger, v[k]);
    if (larger > top) {
      sum *= exp2f((top - larger) * LOG2E);
      top = larger;
    }
    for (int k = 0; k < LANES; ++k)
      sum += v[k] == -INFINITY ? 0.0f : exp2f((v[k] - top) * LOG2E);
  }
  float own = top;
  top = block_max(top, slots);
  sum = block_sum(sum * exp2f((own - top) * LOG2E), slots);
  if (threadIdx.x == 0) {
    long long y = target[blockIdx.x];
    float l = logf(sum);
    top_logit[blockIdx.x] = top;
    lse[blockIdx.x] = l;
    loss[blockIdx.x] = y == ignore_index ? 0.0f : l - (load(row, y) - top);
  }
}

// dlogits = (softmax(x) - onehot(target)) scale, 0 in ignored rows.
extern "C" __global__ void cross_entropy_backward(const scalar *logits, const long long *target,
                                                  const float *top_logit, const float *lse,
                                                  const float *scale, scalar *dlogits, int width,
                                                  long long ignore_index) {
  const scalar *row = logits + (long long)blockIdx.x * width;
  scalar *out = dlogits + (long long)blockIdx.x * width;
  long long y = target[blockIdx.x];
  float top = top_logit[blockIdx.x], l = lse[blockIdx.x], s = scale[blockIdx.x];
  for (int i = first_pack(row) + (int)threadIdx.x * LANES; i < width; i += blockDim.x * LANES) {
    float v[LANES];
    load_span(row, i, width, v);
    for (int k = 0; k < LANES; ++k) {
      float p = exp2f((v[k] - top - l) * LOG2E) - (i + k == y ? 1.0f : 0.0f);
      v[k] = y == ignore_index ? 0.0f : p * s;
    }
    store_span(out, i, width, v);
  }
}
