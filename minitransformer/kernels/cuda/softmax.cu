// Softmax of rows: one block a row.
#include "common.cuh"

extern "C" __global__ void softmax_forward(const scalar *x, scalar *P, int width) {
  __shared__ float slots[WARP];
  long long row = (long long)blockIdx.x * width;
  float top = -INFINITY;
  for (int i = threadIdx.x; i < width; i += blockDim.x) top = fmaxf(top, load(x, row + i));
  top = block_max(top, slots);
  float sum = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum += expf(load(x, row + i) - top);
  sum = block_sum(sum, slots);
  for (int i = threadIdx.x; i < width; i += blockDim.x)
    store(P, row + i, expf(load(x, row + i) - top) / sum);
}

// dx = P (dP - Σ dP P)
extern "C" __global__ void softmax_backward(const scalar *dP, const scalar *P, scalar *dx, int width) {
  __shared__ float slots[WARP];
  long long row = (long long)blockIdx.x * width;
  float dot = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x)
    dot += load(dP, row + i) * load(P, row + i);
  dot = block_sum(dot, slots);
  for (int i = threadIdx.x; i < width; i += blockDim.x)
    store(dx, row + i, load(P, row + i) * (load(dP, row + i) - dot));
}
