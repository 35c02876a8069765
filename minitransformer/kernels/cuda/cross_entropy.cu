// Softmax and cross-entropy against class numbers; probabilities are never stored.
#include "common.cuh"

// loss = lse - (x[target] - top) per row, 0 where the target is ignored; lse is the log-sum-exp
// of the logits less their largest, kept apart so that large logits do not round the loss away.
extern "C" __global__ void cross_entropy_forward(const scalar *logits, const long long *target,
                                                 float *loss, float *top_logit, float *lse, int width,
                                                 long long ignore_index) {
  __shared__ float slots[WARP];
  long long row = (long long)blockIdx.x * width;
  float top = -INFINITY;
  for (int i = threadIdx.x; i < width; i += blockDim.x) top = fmaxf(top, load(logits, row + i));
  top = block_max(top, slots);
  float sum = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum += expf(load(logits, row + i) - top);
  sum = block_sum(sum, slots);
  if (threadIdx.x == 0) {
    long long y = target[blockIdx.x];
    float l = logf(sum);
    top_logit[blockIdx.x] = top;
    lse[blockIdx.x] = l;
    loss[blockIdx.x] = y == ignore_index ? 0.0f : l - (load(logits, row + y) - top);
  }
}

// dlogits = (softmax(x) - onehot(target)) scale, 0 in ignored rows.
extern "C" __global__ void cross_entropy_backward(const scalar *logits, const long long *target,
                                                  const float *top_logit, const float *lse,
                                                  const float *scale,
                                                  scalar *dlogits, int width, long long ignore_index) {
  long long row = (long long)blockIdx.x * width;
  long long y = target[blockIdx.x];
  float top = top_logit[blockIdx.x], l = lse[blockIdx.x], s = scale[blockIdx.x];
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float p = expf(load(logits, row + i) - top - l) - (i == y ? 1.0f : 0.0f);
    store(dlogits, row + i, y == ignore_index ? 0.0f : p * s);
  }
}
