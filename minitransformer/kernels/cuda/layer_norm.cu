// Layer normalisation: one block a row, two passes over it, everything in float32.
#include "common.cuh"

// y = (x - mean) rstd gain + shift; gain and shift may be null.
extern "C" __global__ void layer_norm_forward(const scalar *x, const scalar *gain, const scalar *shift, scalar *y,
                                              float *mean, float *rstd, int width, float eps) {
  __shared__ float slots[WARP];
  long long row = (long long)blockIdx.x * width;
  float sum = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum += load(x, row + i);
  float mu = block_sum(sum, slots) / width;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float d = load(x, row + i) - mu;
    squares += d * d;
  }
  float r = rsqrtf(block_sum(squares, slots) / width + eps);
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float x_hat = (load(x, row + i) - mu) * r;
    if (gain) x_hat *= load(gain, i);
    if (shift) x_hat += load(shift, i);
    store(y, row + i, x_hat);
  }
  if (threadIdx.x == 0) {
    mean[blockIdx.x] = mu;
    rstd[blockIdx.x] = r;
  }
}

// dx = rstd (dx_hat - mean(dx_hat) - x_hat mean(dx_hat x_hat)), with dx_hat = dy gain.
extern "C" __global__ void layer_norm_backward_x(const scalar *dy, const scalar *x, const scalar *gain,
                                                 const float *mean, const float *rstd, scalar *dx,
                                                 int width) {
  __shared__ float slots[WARP];
  long long row = (long long)blockIdx.x * width;
  float mu = mean[blockIdx.x], r = rstd[blockIdx.x];
  float sum = 0.0f, projection = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float dx_hat = load(dy, row + i) * (gain ? load(gain, i) : 1.0f);
    sum += dx_hat;
    projection += dx_hat * (load(x, row + i) - mu) * r;
  }
  sum = block_sum(sum, slots) / width;
  projection = block_sum(projection, slots) / width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float dx_hat = load(dy, row + i) * (gain ? load(gain, i) : 1.0f);
    float x_hat = (load(x, row + i) - mu) * r;
    store(dx, row + i, r * (dx_hat - sum - x_hat * projection));
  }
}

// Partial sums over a stretch of rows: dgain[part] = Σ dy x_hat, dshift[part] = Σ dy. A warp
// reads 32 neighbouring columns at once; blockIdx.y numbers the stretch.
extern "C" __global__ void layer_norm_backward_parameters(const scalar *dy, const scalar *x,
                                                          const float *mean, const float *rstd,
                                                          float *dgain, float *dshift, int rows,
                                                          int width, int rows_per_part) {
  __shared__ float gains[8][WARP], shifts[8][WARP];
  int lane = threadIdx.x % WARP, line = threadIdx.x / WARP;
  int column = blockIdx.x * WARP + lane;
  int start = blockIdx.y * rows_per_part;
  int stop = start + rows_per_part < rows ? start + rows_per_part : rows;
  float g = 0.0f, s = 0.0f;
  if (column < width)
    for (int row = start + line; row < stop; row += 8) {
      long long i = (long long)row * width + column;
      float d = load(dy, i);
      g += d * (load(x, i) - mean[row]) * rstd[row];
      s += d;
    }
  gains[line][lane] = g;
  shifts[line][lane] = s;
  __syncthreads();
  if (line == 0 && column < width) {
    for (int k = 1; k < 8; ++k) {
      g += gains[k][lane];
      s += shifts[k][lane];
    }
    dgain[(long long)blockIdx.y * width + column] = g;
    dshift[(long long)blockIdx.y * width + column] = s;
  }
}
