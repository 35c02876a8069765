// Flash attention on the ordinary cores, exact float32: the lower rung, which takes any type, any
// strides and any E up to HEAD. The upper one, attention_mma.cu, has the formulas' numbers in the
// paper; attention.cuh the layout of a problem.
//
// A block owns TILE rows and walks over tiles of as many others. Its 128 threads are 8 × 16: a
// thread has rows 4y ... 4y+3 and, of a tile of scores, columns x and x + 16; of an output,
// columns 4x ... 4x+3 and the same 64 further on. So 16 bytes from shared memory serve 8 or 16
// products. The 16 threads that share rows are half a warp: no barrier between the scores and
// their use. Rows are HEAD + 4 floats apart, so that those of 8 threads start in different banks.
#include "attention.cuh"

#ifndef HEAD
#define HEAD 64  // E rounded up to a multiple of 64
#endif
#define TILE 32
#define THREADS 128
#define PITCH (HEAD + 4)
#define NEXT (TILE + 4)     // from one row of scores to the next
#define COLUMNS (HEAD / 64)  // fours of an output row that a thread has

// Copy rows first ... first + TILE of an (n, E) matrix to shared memory, zeros beyond its edges.
__device__ inline void fetch(float *tile, const scalar *matrix, long long stride, int first, int n,
                             int E) {
  for (int i = threadIdx.x; i < TILE * HEAD; i += THREADS) {
    int row = i / HEAD, column = i % HEAD;
    bool inside = first + row < n && column < E;
    tile[row * PITCH + column] = inside ? load(matrix, (first + row) * stride + column) : 0.0f;
  }
}

__device__ inline float4 four(const float *p) { return *(const float4 *)p; }

// c = A Bᵀ: this thread's 4 rows of A against its 2 rows of B.
__device__ inline void multiply_rows(float (&c)[4][2], const float *A, const float *B) {
  int y = threadIdx.x / 16, x = threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) c[i][0] = c[i][1] = 0.0f;
#pragma unroll 4
  for (int e = 0; e < HEAD; e += 4) {
    float4 b[2] = {four(B + x * PITCH + e), four(B + (x + 16) * PITCH + e)};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float4 a = four(A + (4 * y + i) * PITCH + e);
#pragma unroll
      for (int j = 0; j < 2; ++j)
        c[i][j] += a.x * b[j].x + a.y * b[j].y + a.z * b[j].z + a.w * b[j].w;
    }
  }
}

__device__ inline void add_scaled(float4 &sum, float weight, float4 v) {
  sum.x += weight * v.x;
  sum.y += weight * v.y;
  sum.z += weight * v.z;
  sum.w += weight * v.w;
}

__device__ inline float finite(float x) { return fabsf(x) < INFINITY ? x : 0.0f; }

// c += P B for this thread's 4 rows; P, of half a warp, goes through shared memory.
__device__ inline void accumulate(float4 (&c)[4][COLUMNS], const float (&P)[4][2], float *scores,
                                  const float *B, bool careful = false) {
  int y = threadIdx.x / 16, x = threadIdx.x % 16;
  __syncwarp();  // others may still read what was there
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j) scores[(4 * y + i) * NEXT + x + 16 * j] = P[i][j];
  __syncwarp();
#pragma unroll 2
  for (int k = 0; k < TILE; k += 4) {
    float4 weights[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) weights[i] = four(scores + (4 * y + i) * NEXT + k);
#pragma unroll
    for (int e = 0; e < COLUMNS; ++e) {
      const float *rows = B + k * PITCH + 64 * e + 4 * x;
      float4 b[4] = {four(rows), four(rows + PITCH), four(rows + 2 * PITCH),
                     four(rows + 3 * PITCH)};
      if (careful)
        for (float4 &v : b) v = {finite(v.x), finite(v.y), finite(v.z), finite(v.w)};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        add_scaled(c[i][e], weights[i].x, b[0]);
        add_scaled(c[i][e], weights[i].y, b[1]);
        add_scaled(c[i][e], weights[i].z, b[2]);
        add_scaled(c[i][e], weights[i].w, b[3]);
      }
    }
  }
}

// Drop entries of a tile of queries × keys: `line` is of its first query, `group` of its first
// eight keys. The 16 threads that share four rows draw the numbers of one row and eight keys each.
__device__ inline void drop(float (&c)[4][2], const Problem &p, long long line, int group) {
  int lane = threadIdx.x % WARP, y = threadIdx.x / 16, x = threadIdx.x % 16;
  unsigned mine = keep_bits(p, line + 4 * y + x % 4, group + x / 4);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      unsigned bits = __shfl_sync(FULL, mine, (lane & 16) + i + 4 * (2 * j + x / 8));
      c[i][j] = bits >> x % 8 & 1 ? c[i][j] * p.kept : 0.0f;
    }
}

__device__ inline void clear(float4 (&c)[4][COLUMNS]) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int e = 0; e < COLUMNS; ++e) c[i][e] = {0.0f, 0.0f, 0.0f, 0.0f};
}

__device__ inline bool has_nan(const float4 (&row)[COLUMNS]) {
  bool nan = false;
#pragma unroll
  for (int e = 0; e < COLUMNS; ++e) {
    float sum = row[e].x + row[e].y + row[e].z + row[e].w;  // inf - inf is worth a second look
    nan = nan || sum != sum;
  }
  return nan;
}

// Write scale · row to `out`.
__device__ inline void write_row(const float4 (&row)[COLUMNS], float scale, scalar *out, int E) {
  int x = threadIdx.x % 16;
#pragma unroll
  for (int e = 0; e < COLUMNS; ++e) {
    float values[4] = {row[e].x, row[e].y, row[e].z, row[e].w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (64 * e + 4 * x + i < E) store(out, 64 * e + 4 * x + i, scale * values[i]);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_forward(const strided *Q, const strided *K, const strided *V,
                      const strided_bool *mask, strided *O, float *lse, Problem p) {
  DYNAMIC_SHARED(memory);
  float *q = (float *)memory, *k = q + TILE * PITCH, *v = k + TILE * PITCH;
  float *scores = v + TILE * PITCH;
  int y = threadIdx.x / 16, x = threadIdx.x % 16, L = p.L, S = p.S, E = p.E;
  int tiles = (L + TILE - 1) / TILE, head = blockIdx.x / tiles, b = head / p.H, h = head % p.H;
  int start = (tiles - 1 - (int)blockIdx.x % tiles) * TILE;  // under a causal mask longest first
  int stop = p.causal ? min(S, start + TILE) : S;
  float c = p.scale * LOG2E;
  Q = head_of(Q, p.Q, b, h);
  K = head_of(K, p.K, b, h / p.R);
  V = head_of(V, p.V, b, h / p.R);
  Sight sight = sight_of(p, mask, b, h);
  fetch(q, Q, p.Q.row, start, L, E);

  float m[4], l[4];
  float4 o[4][COLUMNS];
  clear(o);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    m[i] = -INFINITY;
    l[i] = 0.0f;
  }
  for (int first = 0; first < stop; first += TILE) {
    __syncthreads();
    fetch(k, K, p.K.row, first, S, E);
    fetch(v, V, p.V.row, first, S, E);
    __syncthreads();
    float s[4][2];
    multiply_rows(s, q, k);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float top = m[i];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        bool seen = visible(sight, min(start + 4 * y + i, L - 1), first + x + 16 * j);
        s[i][j] = seen ? c * s[i][j] : -INFINITY;
        top = fmaxf(top, s[i][j]);
      }
      for (int other = 8; other > 0; other /= 2)
        top = fmaxf(top, __shfl_xor_sync(FULL, top, other));
      float base = top == -INFINITY ? 0.0f : top, decay = exp2f(m[i] - base);
      s[i][0] = exp2f(s[i][0] - base);
      s[i][1] = exp2f(s[i][1] - base);
      l[i] = l[i] * decay + s[i][0] + s[i][1];
      m[i] = top;
#pragma unroll
      for (int e = 0; e < COLUMNS; ++e) {
        float4 &sum = o[i][e];
        sum = {sum.x * decay, sum.y * decay, sum.z * decay, sum.w * decay};
      }
    }
    if (DROPOUT) drop(s, p, (long long)head * L + start, first / 8);
    accumulate(o, s, scores, v);
  }

  O = head_of(O, p.O, b, h);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    int query = start + 4 * y + i;
    for (int other = 8; other > 0; other /= 2) l[i] += __shfl_xor_sync(FULL, l[i], other);
    if (query < L) {
      write_row(o[i], l[i] == 0.0f ? 0.0f : 1.0f / l[i], O + query * p.O.row, E);
      if (x == 0)
        lse[(long long)head * L + query] =
            l[i] == 0.0f ? -INFINITY : m[i] / LOG2E + logf(l[i]);
    }
    // a NaN that the weights do not explain: see careful_row
    __syncwarp();  // what it writes comes later
    unsigned doubtful = __ballot_sync(FULL, query < L && l[i] == l[i] && has_nan(o[i]));
    for (int half = 0; half < 2; ++half) {
      int again = start + 4 * (y / 2 * 2 + half) + i;
      if (doubtful >> 16 * half & 0xffff)
        careful_row(Q + again * p.Q.row, K, p.K.row, V, p.V.row, sight, p,
                    (long long)head * L + again, again, c, O + again * p.O.row);
    }
  }
}

// D = rowsum(dO ∘ O): one warp a row.
extern "C" __global__ void attention_backward_dot(const strided *dO, const strided *O, float *D,
                                                  long long rows, Problem p) {
  long long row = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (row >= rows) return;  // with all of its warp
  int b = row / p.L / p.H, h = row / p.L % p.H, query = row % p.L;
  dO = head_of(dO, p.dO, b, h) + query * p.dO.row;
  O = head_of(O, p.O, b, h) + query * p.O.row;
  float sum = 0.0f;
  for (int e = threadIdx.x % WARP; e < p.E; e += WARP) sum += load(dO, e) * load(O, e);
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) D[row] = sum;
}

// dK = scale dSᵀ Q and dV = Pᵀ dO: a block owns a tile of keys and walks over all queries of
// all R heads that share it.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_backward_keys(const strided *Q, const strided *K, const strided *V,
                            const strided_bool *mask, const strided *dO, const float *lse,
                            const float *D, strided *dK, strided *dV, Problem p) {
  DYNAMIC_SHARED(memory);
  float *k = (float *)memory, *v = k + TILE * PITCH, *q = v + TILE * PITCH;
  float *dout = q + TILE * PITCH, *scores = dout + TILE * PITCH;
  int y = threadIdx.x / 16, x = threadIdx.x % 16, L = p.L, S = p.S, E = p.E, G = p.H / p.R;
  int tiles = (S + TILE - 1) / TILE, b = blockIdx.x / tiles / G, g = blockIdx.x / tiles % G;
  int first = (int)blockIdx.x % tiles * TILE;
  float c = p.scale * LOG2E;
  fetch(k, head_of(K, p.K, b, g), p.K.row, first, S, E);
  fetch(v, head_of(V, p.V, b, g), p.V.row, first, S, E);
  float4 dk[4][COLUMNS], dv[4][COLUMNS];
  clear(dk);
  clear(dv);
  for (int h = g * p.R; h < (g + 1) * p.R; ++h) {
    Sight sight = sight_of(p, mask, b, h);
    long long line = ((long long)b * p.H + h) * L;
    for (int start = p.causal ? first : 0; start < L; start += TILE) {
      __syncthreads();
      fetch(q, head_of(Q, p.Q, b, h), p.Q.row, start, L, E);
      fetch(dout, head_of(dO, p.dO, b, h), p.dO.row, start, L, E);
      __syncthreads();
      float weights[4][2], slopes[4][2];
      multiply_rows(weights, k, q);
      multiply_rows(slopes, v, dout);
      unsigned mine = 0;  // 8 keys hold the rows of both halves of a warp: each draws for one j
      if (DROPOUT) mine = keep_bits(p, line + start + x + y % 2 * 16, first / 8 + y / 2);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        unsigned bits = DROPOUT ? __shfl_sync(FULL, mine, x + 16 * j) >> y % 2 * 4 : 0;
        int query = start + x + 16 * j;
        float base = query < L ? lse[line + query] * LOG2E : 0.0f;
        float dot = query < L ? D[line + query] : 0.0f;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          bool seen = query < L && visible(sight, query, first + 4 * y + i);
          weights[i][j] = seen && base != -INFINITY ? exp2f(c * weights[i][j] - base) : 0.0f;
          float factor = !DROPOUT ? 1.0f : bits >> i & 1 ? p.kept : 0.0f;
          slopes[i][j] = seen ? weights[i][j] * (slopes[i][j] * factor - dot) : 0.0f;
          weights[i][j] *= factor;
        }
      }
      accumulate(dv, weights, scores, dout);
      accumulate(dk, slopes, scores, q);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    int key = first + 4 * y + i;
    long long row = (((long long)b * S + key) * G + g) * E;
    if (key < S) write_row(dk[i], p.scale, dK + row, E);
    if (key < S) write_row(dv[i], 1.0f, dV + row, E);
  }
}

// dQ = scale dS K: a block owns a tile of queries and walks over the keys.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_backward_queries(const strided *Q, const strided *K, const strided *V,
                               const strided_bool *mask, const strided *dO, const float *lse,
                               const float *D, strided *dQ, Problem p) {
  DYNAMIC_SHARED(memory);
  float *q = (float *)memory, *dout = q + TILE * PITCH, *k = dout + TILE * PITCH;
  float *v = k + TILE * PITCH, *scores = v + TILE * PITCH;
  int y = threadIdx.x / 16, x = threadIdx.x % 16, L = p.L, S = p.S, E = p.E;
  int tiles = (L + TILE - 1) / TILE, head = blockIdx.x / tiles, b = head / p.H, h = head % p.H;
  int start = (tiles - 1 - (int)blockIdx.x % tiles) * TILE;
  int stop = p.causal ? min(S, start + TILE) : S;
  float c = p.scale * LOG2E;
  Sight sight = sight_of(p, mask, b, h);
  fetch(q, head_of(Q, p.Q, b, h), p.Q.row, start, L, E);
  fetch(dout, head_of(dO, p.dO, b, h), p.dO.row, start, L, E);
  float base[4], dot[4];
  float4 dq[4][COLUMNS];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    long long line = (long long)head * L + min(start + 4 * y + i, L - 1);
    base[i] = lse[line] * LOG2E;
    dot[i] = D[line];
  }
  // A NaN in the sum: once more, with zeros for the infinities and NaN among the keys, which a
  // slope of zero would not keep away. Where a query sees one, its slopes are NaN already.
  for (int careful = 0; careful < 2; ++careful) {
    clear(dq);
    for (int first = 0; first < stop; first += TILE) {
      __syncthreads();
      fetch(k, head_of(K, p.K, b, h / p.R), p.K.row, first, S, E);
      fetch(v, head_of(V, p.V, b, h / p.R), p.V.row, first, S, E);
      __syncthreads();
      float weights[4][2], slopes[4][2];
      multiply_rows(weights, q, k);
      multiply_rows(slopes, dout, v);
      if (DROPOUT) drop(slopes, p, (long long)head * L + start, first / 8);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          bool seen = visible(sight, min(start + 4 * y + i, L - 1), first + x + 16 * j);
          float weight = base[i] != -INFINITY ? exp2f(c * weights[i][j] - base[i]) : 0.0f;
          slopes[i][j] = seen ? weight * (slopes[i][j] - dot[i]) : 0.0f;
        }
      accumulate(dq, slopes, scores, k, careful);
    }
    bool nan = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) nan = nan || has_nan(dq[i]);
    if (!__syncthreads_or(nan)) break;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    int query = start + 4 * y + i;
    if (query < L)
      write_row(dq[i], p.scale, dQ + (((long long)b * L + query) * p.H + h) * E, E);
  }
}
