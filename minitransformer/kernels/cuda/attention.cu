// Flash attention, the exact float32 rung: tiles in shared memory, online softmax, no atomics.
//
// Layout (B, H, L, E) for queries and (B, G, S, E) for keys and values, contiguous; R = H / G
// query heads share a key-value head. E is at most HEAD. A row that sees no key gives zeros and
// a log-sum-exp of -inf. Backward is three kernels (row dot, dK and dV, dQ), each of which owns
// what it writes, so that repeats are bit-equal.
#include "common.cuh"

#ifndef HEAD
#define HEAD 64
#endif
#define TILE 32  // queries and keys of a tile; the block has TILE × WARPS threads
#define WARPS 4
#define COLUMNS ((HEAD + WARP - 1) / WARP)  // entries of a head that one lane holds

__device__ inline bool visible(int query, int key, int S, int causal, const unsigned char *mask,
                               long long mask_row) {
  if (key >= S || (causal && key > query)) return false;
  return !mask || mask[mask_row + key];
}

// Copy rows start ... start + TILE of an (n, E) matrix to shared memory, zeros beyond its end.
__device__ inline void fetch(float (*tile)[HEAD + 1], const scalar *matrix, int start, int n, int E) {
  for (int i = threadIdx.x; i < TILE * HEAD; i += blockDim.x) {
    int row = i / HEAD, column = i % HEAD;
    bool inside = start + row < n && column < E;
    tile[row][column] = inside ? load(matrix, (long long)(start + row) * E + column) : 0.0f;
  }
}

__device__ inline float dot(const float *a, const float *b) {
  float sum = 0.0f;
  for (int e = 0; e < HEAD; ++e) sum += a[e] * b[e];
  return sum;
}

// One warp owns TILE / WARPS query rows; its lanes own the keys of a tile, then the entries of V.
extern "C" __global__ void attention_forward(const scalar *Q, const scalar *K, const scalar *V,
                                             const unsigned char *mask, scalar *O, float *lse, int H,
                                             int G, int L, int S, int E, float scale,
                                             int causal) {
  __shared__ float q[TILE][HEAD + 1], k[TILE][HEAD + 1], v[TILE][HEAD + 1];
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  int head = blockIdx.y, b = head / H, g = (head % H) / (H / G);
  int start = blockIdx.x * TILE;
  const scalar *keys = K + ((long long)b * G + g) * S * E, *values = V + ((long long)b * G + g) * S * E;
  fetch(q, Q + (long long)head * L * E, start, L, E);

  float m[TILE / WARPS], l[TILE / WARPS], o[TILE / WARPS][COLUMNS];
  for (int r = 0; r < TILE / WARPS; ++r) {
    m[r] = -INFINITY;
    l[r] = 0.0f;
    for (int c = 0; c < COLUMNS; ++c) o[r][c] = 0.0f;
  }
  int stop = causal && start + TILE < S ? start + TILE : S;
  for (int first = 0; first < stop; first += TILE) {
    __syncthreads();
    fetch(k, keys, first, S, E);
    fetch(v, values, first, S, E);
    __syncthreads();
    for (int r = 0; r < TILE / WARPS; ++r) {
      int row = warp * (TILE / WARPS) + r, query = start + row;
      bool seen = query < L && visible(query, first + lane, S, causal, mask,
                                       ((long long)head * L + query) * S);
      float s = seen ? scale * dot(q[row], k[lane]) : -INFINITY;
      float top = fmaxf(m[r], warp_max(s));
      float base = top == -INFINITY ? 0.0f : top;
      float p = seen ? expf(s - base) : 0.0f;
      float decay = expf(m[r] - base);
      l[r] = l[r] * decay + warp_sum(p);
      m[r] = top;
      for (int c = 0; c < COLUMNS; ++c) o[r][c] *= decay;
      for (int j = 0; j < TILE; ++j) {
        float weight = __shfl_sync(FULL, p, j);
        if (weight == 0.0f) continue;  // a NaN in a hidden value stays hidden
        for (int c = 0; c < COLUMNS; ++c)
          if (lane + c * WARP < HEAD) o[r][c] += weight * v[j][lane + c * WARP];
      }
    }
  }
  for (int r = 0; r < TILE / WARPS; ++r) {
    int query = start + warp * (TILE / WARPS) + r;
    if (query >= L) continue;
    long long row = (long long)head * L + query;
    for (int c = 0; c < COLUMNS; ++c)
      if (lane + c * WARP < E)
        store(O, row * E + lane + c * WARP, l[r] == 0.0f ? 0.0f : o[r][c] / l[r]);
    if (lane == 0) lse[row] = l[r] == 0.0f ? -INFINITY : m[r] + logf(l[r]);
  }
}

// D = rowsum(dO O): one warp a row.
extern "C" __global__ void attention_backward_dot(const scalar *dO, const scalar *O, float *D, long long rows,
                                                  int E) {
  long long row = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  float sum = 0.0f;
  if (row < rows)
    for (int e = threadIdx.x % WARP; e < E; e += WARP)
      sum += load(dO, row * E + e) * load(O, row * E + e);
  sum = warp_sum(sum);
  if (row < rows && threadIdx.x % WARP == 0) D[row] = sum;
}

// P = exp(S - lse) and dS = P (dP - D) of one pair; zeros where the key is hidden.
__device__ inline void weight_and_slope(bool seen, const float *q, const float *k, const float *v,
                                        const float *dout, float lse, float D, float scale,
                                        float *p, float *ds) {
  *p = seen ? expf(scale * dot(q, k) - lse) : 0.0f;
  *ds = seen ? *p * (dot(dout, v) - D) : 0.0f;
}

// dK = scale dSᵀ Q and dV = Pᵀ dO: a block owns a tile of keys and walks over all queries of
// all R heads that share it.
extern "C" __global__ void attention_backward_keys(const scalar *Q, const scalar *K, const scalar *V,
                                                   const unsigned char *mask, const scalar *dO,
                                                   const float *lse, const float *D, scalar *dK, scalar *dV,
                                                   int H, int G, int L, int S, int E, float scale,
                                                   int causal) {
  __shared__ float q[TILE][HEAD + 1], dout[TILE][HEAD + 1], k[TILE][HEAD + 1], v[TILE][HEAD + 1];
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  int b = blockIdx.y / G, g = blockIdx.y % G, R = H / G, first = blockIdx.x * TILE;
  long long group = (long long)blockIdx.y * S * E;
  fetch(k, K + group, first, S, E);
  fetch(v, V + group, first, S, E);
  float dk[TILE / WARPS][COLUMNS], dv[TILE / WARPS][COLUMNS];
  for (int r = 0; r < TILE / WARPS; ++r)
    for (int c = 0; c < COLUMNS; ++c) dk[r][c] = dv[r][c] = 0.0f;

  for (int member = 0; member < R; ++member) {
    long long head = (long long)b * H + g * R + member;
    for (int start = causal ? first : 0; start < L; start += TILE) {
      __syncthreads();
      fetch(q, Q + head * L * E, start, L, E);
      fetch(dout, dO + head * L * E, start, L, E);
      __syncthreads();
      int query = start + lane;
      for (int r = 0; r < TILE / WARPS; ++r) {
        int row = warp * (TILE / WARPS) + r;
        bool seen = query < L && visible(query, first + row, S, causal, mask,
                                         (head * L + query) * S);
        float p, ds;
        weight_and_slope(seen, q[lane], k[row], v[row], dout[lane],
                         query < L ? lse[head * L + query] : 0.0f,
                         query < L ? D[head * L + query] : 0.0f, scale, &p, &ds);
        for (int j = 0; j < TILE; ++j) {
          float weight = __shfl_sync(FULL, p, j), slope = __shfl_sync(FULL, ds, j);
          for (int c = 0; c < COLUMNS; ++c)
            if (lane + c * WARP < HEAD) {
              dv[r][c] += weight * dout[j][lane + c * WARP];
              dk[r][c] += slope * q[j][lane + c * WARP];
            }
        }
      }
    }
  }
  for (int r = 0; r < TILE / WARPS; ++r) {
    int key = first + warp * (TILE / WARPS) + r;
    if (key >= S) continue;
    for (int c = 0; c < COLUMNS; ++c)
      if (lane + c * WARP < E) {
        store(dK, group + (long long)key * E + lane + c * WARP, scale * dk[r][c]);
        store(dV, group + (long long)key * E + lane + c * WARP, dv[r][c]);
      }
  }
}

// dQ = scale dS K: a block owns a tile of queries and walks over the keys.
extern "C" __global__ void attention_backward_queries(const scalar *Q, const scalar *K, const scalar *V,
                                                      const unsigned char *mask, const scalar *dO,
                                                      const float *lse, const float *D, scalar *dQ,
                                                      int H, int G, int L, int S, int E,
                                                      float scale, int causal) {
  __shared__ float q[TILE][HEAD + 1], dout[TILE][HEAD + 1], k[TILE][HEAD + 1], v[TILE][HEAD + 1];
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  int head = blockIdx.y, b = head / H, g = (head % H) / (H / G), start = blockIdx.x * TILE;
  long long group = ((long long)b * G + g) * S * E;
  fetch(q, Q + (long long)head * L * E, start, L, E);
  fetch(dout, dO + (long long)head * L * E, start, L, E);
  float dq[TILE / WARPS][COLUMNS];
  for (int r = 0; r < TILE / WARPS; ++r)
    for (int c = 0; c < COLUMNS; ++c) dq[r][c] = 0.0f;

  int stop = causal && start + TILE < S ? start + TILE : S;
  for (int first = 0; first < stop; first += TILE) {
    __syncthreads();
    fetch(k, K + group, first, S, E);
    fetch(v, V + group, first, S, E);
    __syncthreads();
    for (int r = 0; r < TILE / WARPS; ++r) {
      int row = warp * (TILE / WARPS) + r, query = start + row;
      long long line = (long long)head * L + query;
      bool seen = query < L && visible(query, first + lane, S, causal, mask, line * S);
      float p, ds;
      weight_and_slope(seen, q[row], k[lane], v[lane], dout[row], query < L ? lse[line] : 0.0f,
                       query < L ? D[line] : 0.0f, scale, &p, &ds);
      for (int j = 0; j < TILE; ++j) {
        float slope = __shfl_sync(FULL, ds, j);
        if (slope == 0.0f) continue;
        for (int c = 0; c < COLUMNS; ++c)
          if (lane + c * WARP < HEAD) dq[r][c] += slope * k[j][lane + c * WARP];
      }
    }
  }
  for (int r = 0; r < TILE / WARPS; ++r) {
    int query = start + warp * (TILE / WARPS) + r;
    if (query >= L) continue;
    for (int c = 0; c < COLUMNS; ++c)
      if (lane + c * WARP < E)
        store(dQ, ((long long)head * L + query) * E + lane + c * WARP, scale * dq[r][c]);
  }
}
