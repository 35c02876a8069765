// Adam and SGD over many tensors in one launch, and the clipping of gradients.
//
// Where the tensors are is an argument by value, of which a kernel may have 4 KiB: no memory on
// the device, no copy before the launch, nothing to keep alive after it. A block treats one
// chunk of one tensor.
#include "common.cuh"

#define CHUNK 8192

template <int DEPTH, int COUNT> struct Table {
  float *at[DEPTH][COUNT];
  long long size[COUNT];
  int first[COUNT + 1];  // number of each tensor's first chunk; past the last, of all chunks
  int count;
};
typedef Table<4, 90> Moments;  // parameter, gradient, m, v
typedef Table<3, 110> Momenta;  // parameter, gradient, momentum or null
typedef Table<1, 200> Gradients;

// Which tensor this block's chunk belongs to, where in it the chunk starts and how long it is.
struct Place {
  int tensor;
  long long start, length;
};

template <typename T> __device__ inline Place place(const T &table) {
  int low = 0, high = table.count, chunk = blockIdx.x;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (table.first[middle] <= chunk) low = middle; else high = middle;
  }
  long long start = (long long)(chunk - table.first[low]) * CHUNK, rest = table.size[low] - start;
  return {low, start, rest < CHUNK ? rest : CHUNK};
}

// `decay` is 1 - lr λ of AdamW and `l2` the λ of Adam; `step_size` is lr / (1 - β₁ᵗ) and `root`
// √(1 - β₂ᵗ); `sign` is -1 to go up the gradient.
extern "C" __global__ void adam(const Moments table, float step_size, float root, float beta1,
                                float beta2, float eps, float decay, float l2, float sign) {
  Place here = place(table);
  float *parameter = table.at[0][here.tensor] + here.start;
  const float *gradient = table.at[1][here.tensor] + here.start;
  float *m = table.at[2][here.tensor] + here.start, *v = table.at[3][here.tensor] + here.start;
  for (long long i = 4 * threadIdx.x; i < here.length; i += 4 * blockDim.x) {
    long long left = here.length - i;
    float p[4], g[4], first[4], second[4];
    load_pack(parameter + i, left, p);
    load_pack(gradient + i, left, g);
    load_pack(m + i, left, first);
    load_pack(v + i, left, second);
    for (int k = 0; k < 4; ++k) {
      float slope = sign * g[k] + l2 * p[k];
      first[k] += (1.0f - beta1) * (slope - first[k]);
      second[k] = beta2 * second[k] + (1.0f - beta2) * slope * slope;
      p[k] = p[k] * decay - step_size * first[k] / (sqrtf(second[k]) / root + eps);
    }
    store_pack(parameter + i, left, p);
    store_pack(m + i, left, first);
    store_pack(v + i, left, second);
  }
}

// b = momentum b + fresh g; the parameter falls by lr b, with `nesterov` by lr (g + momentum b).
extern "C" __global__ void sgd(const Momenta table, float lr, float momentum, float fresh, float l2,
                               float sign, int nesterov) {
  Place here = place(table);
  float *parameter = table.at[0][here.tensor] + here.start;
  const float *gradient = table.at[1][here.tensor] + here.start;
  float *buffer = table.at[2][here.tensor];
  for (long long i = 4 * threadIdx.x; i < here.length; i += 4 * blockDim.x) {
    long long left = here.length - i;
    float p[4], g[4], b[4];
    load_pack(parameter + i, left, p);
    load_pack(gradient + i, left, g);
    if (buffer) load_pack(buffer + here.start + i, left, b);
    for (int k = 0; k < 4; ++k) {
      float slope = sign * g[k] + l2 * p[k];
      if (buffer) {
        b[k] = momentum * b[k] + fresh * slope;
        slope = nesterov ? slope + momentum * b[k] : b[k];
      }
      p[k] -= lr * slope;
    }
    store_pack(parameter + i, left, p);
    if (buffer) store_pack(buffer + here.start + i, left, b);
  }
}

// One partial sum of squares per chunk.
extern "C" __global__ void squares(const Gradients table, float *partial) {
  __shared__ float slots[WARP];
  Place here = place(table);
  const float *x = table.at[0][here.tensor] + here.start;
  float sum = 0.0f;
  for (long long i = 4 * threadIdx.x; i < here.length; i += 4 * blockDim.x) {
    float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    load_pack(x + i, here.length - i, v);
    for (int k = 0; k < 4; ++k) sum += v[k] * v[k];
  }
  sum = block_sum(sum, slots);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// norm = √Σ partial, by one block in a fixed order.
extern "C" __global__ void root_of_sum(const float *partial, float *norm, int n) {
  __shared__ float slots[WARP];
  float sum = 0.0f;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += partial[i];
  sum = block_sum(sum, slots);
  if (threadIdx.x == 0) *norm = sqrtf(sum);
}

// x *= min(1, limit / (norm + 1e-6)), a NaN included; where that is one, nothing is touched.
extern "C" __global__ void clip(const Gradients table, const float *norm, float limit) {
  float factor = limit / (*norm + 1e-6f);
  if (factor >= 1.0f) return;
  Place here = place(table);
  float *x = table.at[0][here.tensor] + here.start;
  for (long long i = 4 * threadIdx.x; i < here.length; i += 4 * blockDim.x) {
    float v[4];
    load_pack(x + i, here.length - i, v);
    for (int k = 0; k < 4; ++k) v[k] *= factor;
    store_pack(x + i, here.length - i, v);
  }
}
