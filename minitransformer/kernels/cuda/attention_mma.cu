// Flash attention on tensor cores, the upper rung beside attention.cu: float16 or bfloat16 in
// memory, float32 in between (Dao 2023, FlashAttention-2, arXiv:2307.08691).
//
// Takes E up to HEAD, a multiple of 8, and rows at any multiple of 8 entries from each other: 16
// bytes at a time. A query that sees no key gives zeros and a log-sum-exp of -inf. No atomics:
// each block owns what it writes, so that repeats are bit-equal.
//
// A block is 4 warps. Its own rows, 16 or 32 for each warp, stay in shared memory; the tiles it
// walks over come by cp.async into two buffers, the next one while this one is worked on, so that
// a step has one barrier. Scores and weights never leave the registers (mma.cuh says how). Rows in
// shared memory are HEAD + 8 entries apart: any eight of them start in different banks, and eight
// are what ldmatrix reads at once. Tiles that a causal mask hides are not fetched, and a warp
// leaves out those that it hides from all of its own rows.
//
//   kernel    owns                   walks over         shared memory: rows of HEAD + 8
//   forward   128 queries            keys and values    q 128, k 2 KEYS, v 2 KEYS
//   keys      64 BLOCKS keys         queries and dO     k, v 64 BLOCKS each, q, dO 2 STEP each;
//                                                       then lse and D, 2 STEP floats each
//   queries   64 BLOCKS queries      keys and values    q, dO 64 BLOCKS each, k, v 2 STEP each
//
// The launch chooses KEYS = 64 and BLOCKS = 2 for HEAD up to 64, else 32 and 1, and STEP = 32: as
// much as 255 registers hold, at two blocks on a multiprocessor. Two kernels backward make the
// scores twice, seven products instead of five, which is the price of a dQ without atomics.
//
// Forward is algorithm 1 of the paper: with running maximum m, sum l and output O, a tile of
// keys gives (lines 8 to 10) m' = max(m, rowmax S), P = e^(S - m'), l' = e^(m - m') l + rowsum P,
// O' = e^(m - m') O + P V; at the end O / l and m + log l (lines 12 and 13). Exponents are
// base 2: c = scale · log₂ e. Backward is algorithm 2 cut in two, so that dQ needs no atomics:
// D = rowsum(dO ∘ O) (line 4), P = e^(S - lse) (line 11), dV = Pᵀ dO (12), dP = dO Vᵀ (13),
// dS = P ∘ (dP - D) (14), dQ = scale · dS K (15), dK = scale · dSᵀ Q (16).
#include "attention.cuh"
#include "mma.cuh"

#ifndef HEAD
#define HEAD 64  // E rounded up to a multiple of 16
#endif
#ifndef KEYS
#define KEYS 64  // of a step forward
#endif
#ifndef BLOCKS
#define BLOCKS 2  // of 16 rows, that a warp owns backward
#endif
#ifndef STEP
#define STEP 32  // queries or keys of a step backward
#endif
#define THREADS 128
#define WARPS 4
#define QUERIES (WARPS * 32)
#define PITCH (HEAD + 8)
// Start copying rows first ... first + ROWS of an (n, E) matrix, zeros beyond its edges.
template <int ROWS>
__device__ inline void fetch(scalar *tile, const scalar *matrix, long long stride, int first,
                             int n, int E) {
#pragma unroll
  for (int i = threadIdx.x; i < ROWS * (HEAD / 8); i += THREADS) {
    int row = i / (HEAD / 8), column = i % (HEAD / 8) * 8;
    bool inside = first + row < n && column < E;
    cp_async_16(tile + row * PITCH + column,
                inside ? matrix + (first + row) * stride + column : matrix, inside);
  }
}

// This lane's address for ldmatrix of the 16 × 16 block at (row, column): quarters are numbered
// down, then across.
__device__ inline const scalar *block(const scalar *tile, int row, int column) {
  int lane = threadIdx.x % WARP;
  return tile + (row + lane % 16) * PITCH + column + lane / 16 * 8;
}

// c = A Bᵀ, 16 M rows of A against 8 N rows of B.
template <int M, int N>
__device__ inline void multiply_rows(float (&c)[M][N][4], const scalar *A, const scalar *B) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n) c[m][n][0] = c[m][n][1] = c[m][n][2] = c[m][n][3] = 0.0f;
#pragma unroll
  for (int e = 0; e < HEAD; e += 16) {
    unsigned a[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) ldmatrix_x4(a[m], block(A, 16 * m, e));
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      unsigned b[4];
      ldmatrix_x4(b, block(B, 8 * n, e));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16(c[m][n], a[m], b[0], b[2]);
        mma_m16n8k16(c[m][n + 1], a[m], b[1], b[3]);
      }
    }
  }
}

// Both numbers of a register, zeros in place of infinities and NaN.
__device__ inline unsigned finite(unsigned both) {
  const unsigned exponent = KIND(SCALAR) ? 0x7f80u : 0x7c00u;
  if ((both & exponent) == exponent) both &= 0xffff0000u;
  if ((both >> 16 & exponent) == exponent) both &= 0xffffu;
  return both;
}

// c += P B, 8 N columns of P in C fragments against as many rows of B.
template <int M, int N>
__device__ inline void accumulate(float (&c)[M][HEAD / 8][4], const float (&P)[M][N][4],
                                  const scalar *B, bool careful = false) {
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    unsigned a[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        a[m][i] = pack(P[m][n + i / 2][i % 2 * 2], P[m][n + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int e = 0; e < HEAD / 8; e += 2) {
      unsigned b[4];
      ldmatrix_x4_trans(b, block(B, 8 * n, 8 * e));
      if (careful) {
#pragma unroll
        for (int i = 0; i < 4; ++i) b[i] = finite(b[i]);
      }
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16(c[m][e], a[m], b[0], b[1]);
        mma_m16n8k16(c[m][e + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// Drop entries of 16 M queries × 8 N keys in C fragments: `line` is of the first query, `group` of
// the first eight keys. The lanes of a quad draw a quarter of the numbers each and share them.
template <int M, int N>
__device__ inline void drop(float (&c)[M][N][4], const Problem &p, long long line, int group) {
  int lane = threadIdx.x % WARP;
  unsigned mine[M * N / 2];
#pragma unroll
  for (int i = 0; i < M * N / 2; ++i) {
    int unit = 4 * i + lane % 4;
    mine[i] = keep_bits(p, line + unit % (2 * M) * 8 + lane / 4, group + unit / (2 * M));
  }
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int unit = 2 * m + half + 2 * M * n;
        unsigned bits = __shfl_sync(FULL, mine[unit / 4], lane / 4 * 4 + unit % 4) >> lane % 4 * 2;
        c[m][n][2 * half] = bits & 1 ? c[m][n][2 * half] * p.kept : 0.0f;
        c[m][n][2 * half + 1] = bits & 2 ? c[m][n][2 * half + 1] * p.kept : 0.0f;
      }
}

// The same for 16 M keys × 8 N queries, as bits ((m N + n) 2 + half) 2 + j of this lane's entries.
// Here the lanes of a column, every fourth, share.
template <int M, int N>
__device__ inline unsigned kept_columns(const Problem &p, long long line, int group) {
  int lane = threadIdx.x % WARP;
  unsigned mine[M * N / 2], bits = 0;
#pragma unroll
  for (int i = 0; i < M * N / 2; ++i) {
    int unit = 8 * i + lane / 4, column = unit / (2 * M);
    mine[i] = keep_bits(p, line + column / 2 * 8 + lane % 4 * 2 + column % 2,
                        group + unit % (2 * M));
  }
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          int unit = 2 * m + half + 2 * M * (2 * n + j);
          unsigned byte = __shfl_sync(FULL, mine[unit / 8], unit % 8 * 4 + lane % 4);
          bits |= (byte >> lane / 4 & 1) << (((m * N + n) * 2 + half) * 2 + j);
        }
  return bits;
}

template <int M>
__device__ inline void clear(float (&c)[M][HEAD / 8][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int e = 0; e < HEAD / 8; ++e) c[m][e][0] = c[m][e][1] = c[m][e][2] = c[m][e][3] = 0.0f;
}

// Write a warp's 16 M rows to memory, through its own rows in shared memory: 16 bytes a lane.
template <int M>
__device__ inline void write_rows(const float (&c)[M][HEAD / 8][4], scalar *rows, scalar *out,
                                  long long stride, int first, int n, int E) {
  int lane = threadIdx.x % WARP;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int e = 0; e < HEAD / 8; ++e)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *(unsigned *)(rows + (16 * m + 8 * half + lane / 4) * PITCH + 8 * e + lane % 4 * 2) =
            pack(c[m][e][2 * half], c[m][e][2 * half + 1]);
  __syncwarp();
  for (int i = lane; i < 16 * M * (HEAD / 8); i += WARP) {
    int row = i / (HEAD / 8), column = i % (HEAD / 8) * 8;
    if (first + row < n && column < E)
      *(uint4 *)(out + (first + row) * stride + column) =
          *(const uint4 *)(rows + row * PITCH + column);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_forward_mma(const strided *Q, const strided *K, const strided *V,
                          const strided_bool *mask, strided *O, float *lse, Problem p) {
  DYNAMIC_SHARED(memory);
  scalar *q = (scalar *)memory, *k = q + QUERIES * PITCH, *v = k + 2 * KEYS * PITCH;
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, L = p.L, S = p.S, E = p.E;
  int tiles = (L + QUERIES - 1) / QUERIES, head = blockIdx.x / tiles, b = head / p.H;
  int h = head % p.H;
  int start = (tiles - 1 - (int)blockIdx.x % tiles) * QUERIES;  // under a causal mask longest first
  int own = start + warp * 32;                                  // the warp's first query
  int stop = p.causal ? min(S, start + QUERIES) : S;
  float c = p.scale * LOG2E;
  Q = head_of(Q, p.Q, b, h);
  K = head_of(K, p.K, b, h / p.R);
  V = head_of(V, p.V, b, h / p.R);
  Sight sight = sight_of(p, mask, b, h);

  fetch<QUERIES>(q, Q, p.Q.row, start, L, E);
  fetch<KEYS>(k, K, p.K.row, 0, S, E);
  fetch<KEYS>(v, V, p.V.row, 0, S, E);
  cp_async_commit();
  scalar *rows = q + warp * 32 * PITCH;
  float m[2][2], l[2][2], o[2][HEAD / 8][4];
  clear(o);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    m[i / 2][i % 2] = -INFINITY;
    l[i / 2][i % 2] = 0.0f;
  }
  for (int first = 0; first < stop; first += KEYS) {
    int stage = first / KEYS % 2 * KEYS * PITCH, other = KEYS * PITCH - stage;
    cp_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the one before
    if (first + KEYS < stop) {
      fetch<KEYS>(k + other, K, p.K.row, first + KEYS, S, E);
      fetch<KEYS>(v + other, V, p.V.row, first + KEYS, S, E);
    }
    cp_async_commit();
    // the warp has no queries, or this is later than all of them
    if (own >= L || (p.causal && first > own + 31)) continue;

    float s[2][KEYS / 8][4];
    multiply_rows(s, rows, k + stage);
    if (mask || first + KEYS > S || (p.causal && first + KEYS - 1 > own)) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
          for (int j = 0; j < 4; ++j)
            if (!visible(sight, min(own + 16 * i + j / 2 * 8 + lane / 4, L - 1),
                         first + 8 * n + lane % 4 * 2 + j % 2))
              s[i][n][j] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // a row lies in the four lanes of a quad
        float top = m[i][half];
#pragma unroll
        for (int n = 0; n < KEYS / 8; ++n)
          top = fmaxf(top, fmaxf(s[i][n][2 * half], s[i][n][2 * half + 1]));
        top = fmaxf(top, __shfl_xor_sync(FULL, top, 1));
        top = fmaxf(top, __shfl_xor_sync(FULL, top, 2));
        float base = top == -INFINITY ? 0.0f : c * top;
        float decay = exp2_approx(c * m[i][half] - base), sum = 0.0f;
#pragma unroll
        for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
          for (int j = 2 * half; j < 2 * half + 2; ++j)
            sum += s[i][n][j] = exp2_approx(c * s[i][n][j] - base);
        l[i][half] = l[i][half] * decay + sum;
        m[i][half] = top;
#pragma unroll
        for (int e = 0; e < HEAD / 8; ++e) {
          o[i][e][2 * half] *= decay;
          o[i][e][2 * half + 1] *= decay;
        }
      }
    if (DROPOUT) drop(s, p, (long long)head * L + own, first / 8);
    accumulate(o, s, v + stage);
  }

  unsigned doubtful[2][2];  // rows with a NaN that their weights do not explain
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = l[i][half];
      sum += __shfl_xor_sync(FULL, sum, 1);
      sum += __shfl_xor_sync(FULL, sum, 2);
      float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
      bool nan = false;
#pragma unroll
      for (int e = 0; e < HEAD / 8; ++e)
#pragma unroll
        for (int j = 2 * half; j < 2 * half + 2; ++j) {
          o[i][e][j] *= inverse;
          nan = nan || o[i][e][j] != o[i][e][j];
        }
      doubtful[i][half] = __ballot_sync(FULL, nan && sum == sum);
      int query = own + 16 * i + 8 * half + lane / 4;
      if (lane % 4 == 0 && query < L)
        lse[(long long)head * L + query] =
            sum == 0.0f ? -INFINITY : p.scale * m[i][half] + logf(sum);
    }
  O = head_of(O, p.O, b, h);
  write_rows(o, rows, O, p.O.row, own, L, E);
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; ++i)
    for (int g = 0; g < 8; ++g) {
      int query = own + 8 * i + g;
      if (query < L && (doubtful[i / 2][i % 2] >> 4 * g & 15))
        careful_row(Q + query * p.Q.row, K, p.K.row, V, p.V.row, sight, p,
                    (long long)head * L + query, query, c, O + query * p.O.row);
    }
}

// dK = scale dSᵀ Q and dV = Pᵀ dO: rows of a warp are keys, so that Sᵀ and dPᵀ come out as the A
// fragments of these products. All R heads that share the keys are walked over in turn.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_backward_keys_mma(const strided *Q, const strided *K, const strided *V,
                                const strided_bool *mask, const strided *dO, const float *lse,
                                const float *D, strided *dK, strided *dV, Problem p) {
  const int OWN = WARPS * 16 * BLOCKS;
  DYNAMIC_SHARED(memory);
  scalar *k = (scalar *)memory, *v = k + OWN * PITCH, *q = v + OWN * PITCH;
  scalar *dout = q + 2 * STEP * PITCH;
  float *bases = (float *)(dout + 2 * STEP * PITCH), *dots = bases + 2 * STEP;
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, L = p.L, S = p.S, E = p.E;
  int tiles = (S + OWN - 1) / OWN, G = p.H / p.R, b = blockIdx.x / tiles / G;
  int g = blockIdx.x / tiles % G, first = (int)blockIdx.x % tiles * OWN;
  int own = first + warp * 16 * BLOCKS;
  float c = p.scale * LOG2E;

  int from = p.causal ? first / STEP : 0, steps = max((L + STEP - 1) / STEP - from, 0);
  auto begin = [&](int turn) {
    int h = g * p.R + turn / steps, start = (from + turn % steps) * STEP, stage = turn % 2 * STEP;
    long long line = ((long long)b * p.H + h) * L;
    fetch<STEP>(q + stage * PITCH, head_of(Q, p.Q, b, h), p.Q.row, start, L, E);
    fetch<STEP>(dout + stage * PITCH, head_of(dO, p.dO, b, h), p.dO.row, start, L, E);
    if (threadIdx.x < 2 * STEP) {
      int i = threadIdx.x % STEP;
      bool inside = start + i < L;
      const float *from_row = (threadIdx.x < STEP ? lse : D) + (inside ? line + start + i : 0);
      cp_async_4((threadIdx.x < STEP ? bases : dots) + stage + i, from_row, inside);
    }
  };
  fetch<OWN>(k, head_of(K, p.K, b, g), p.K.row, first, S, E);
  fetch<OWN>(v, head_of(V, p.V, b, g), p.V.row, first, S, E);
  if (steps) begin(0);
  cp_async_commit();
  scalar *k_rows = k + warp * 16 * BLOCKS * PITCH, *v_rows = v + warp * 16 * BLOCKS * PITCH;

  float dk[BLOCKS][HEAD / 8][4], dv[BLOCKS][HEAD / 8][4];
  clear(dk);
  clear(dv);
  for (int turn = 0; turn < p.R * steps; ++turn) {
    cp_async_wait<0>();
    __syncthreads();
    if (turn + 1 < p.R * steps) begin(turn + 1);
    cp_async_commit();
    int h = g * p.R + turn / steps, start = (from + turn % steps) * STEP, stage = turn % 2 * STEP;
    // the warp has no keys, or this is earlier than all of them
    if (own >= S || (p.causal && start + STEP - 1 < own)) continue;

    float weights[BLOCKS][STEP / 8][4], slopes[BLOCKS][STEP / 8][4];
    multiply_rows(weights, k_rows, q + stage * PITCH);
    multiply_rows(slopes, v_rows, dout + stage * PITCH);
    Sight sight = sight_of(p, mask, b, h);
    unsigned kept = 0;
    if (DROPOUT)
      kept = kept_columns<BLOCKS, STEP / 8>(p, ((long long)b * p.H + h) * L + start, own / 8);
    bool edge = mask || start + STEP > L || (p.causal && start < own + 16 * BLOCKS - 1);
#pragma unroll
    for (int n = 0; n < STEP / 8; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        int i = 8 * n + lane % 4 * 2 + j, query = start + i;
        float base = bases[stage + i], dot = dots[stage + i];
        base = base == -INFINITY ? 0.0f : base * LOG2E;
#pragma unroll
        for (int m = 0; m < BLOCKS; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float &weight = weights[m][n][2 * half + j], &slope = slopes[m][n][2 * half + j];
            float factor = 1.0f;
            if (DROPOUT) factor = kept >> (((m * (STEP / 8) + n) * 2 + half) * 2 + j) & 1 ? p.kept : 0.0f;
            weight = exp2_approx(c * weight - base);
            slope = weight * (slope * factor - dot);
            weight *= factor;
            int key = own + 16 * m + 8 * half + lane / 4;
            if (edge && (query >= L || !visible(sight, query, key)))
              weight = slope = 0.0f;
          }
      }
    accumulate(dv, weights, dout + stage * PITCH);
    accumulate(dk, slopes, q + stage * PITCH);
  }
  cp_async_wait<0>();  // without a query nobody has waited for the keys
  __syncthreads();
#pragma unroll
  for (int m = 0; m < BLOCKS; ++m)
#pragma unroll
    for (int e = 0; e < HEAD / 8; ++e)
#pragma unroll
      for (int j = 0; j < 4; ++j) dk[m][e][j] *= p.scale;
  long long place = ((long long)b * S * G + g) * E;
  write_rows(dk, k_rows, dK + place, (long long)G * E, own, S, E);
  write_rows(dv, v_rows, dV + place, (long long)G * E, own, S, E);
}

// dQ = scale dS K: rows of a warp are queries.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_backward_queries_mma(const strided *Q, const strided *K, const strided *V,
                                   const strided_bool *mask, const strided *dO, const float *lse,
                                   const float *D, strided *dQ, Problem p) {
  const int OWN = WARPS * 16 * BLOCKS;
  DYNAMIC_SHARED(memory);
  scalar *q = (scalar *)memory, *dout = q + OWN * PITCH, *k = dout + OWN * PITCH;
  scalar *v = k + 2 * STEP * PITCH;
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, L = p.L, S = p.S, E = p.E;
  int tiles = (L + OWN - 1) / OWN, head = blockIdx.x / tiles, b = head / p.H, h = head % p.H;
  int start = (tiles - 1 - (int)blockIdx.x % tiles) * OWN, own = start + warp * 16 * BLOCKS;
  int stop = p.causal ? min(S, start + OWN) : S;
  float c = p.scale * LOG2E;
  K = head_of(K, p.K, b, h / p.R);
  V = head_of(V, p.V, b, h / p.R);
  Sight sight = sight_of(p, mask, b, h);

  fetch<OWN>(q, head_of(Q, p.Q, b, h), p.Q.row, start, L, E);
  fetch<OWN>(dout, head_of(dO, p.dO, b, h), p.dO.row, start, L, E);
  scalar *q_rows = q + warp * 16 * BLOCKS * PITCH;
  scalar *do_rows = dout + warp * 16 * BLOCKS * PITCH;
  float base[BLOCKS][2], dot[BLOCKS][2], dq[BLOCKS][HEAD / 8][4];
#pragma unroll
  for (int m = 0; m < BLOCKS; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int query = own + 16 * m + 8 * half + lane / 4;
      long long line = (long long)head * L + query;
      base[m][half] = query < L && lse[line] != -INFINITY ? lse[line] * LOG2E : 0.0f;
      dot[m][half] = query < L ? D[line] : 0.0f;
    }

  // A NaN in the sum: once more, with zeros for the infinities and NaN among the keys, which a
  // slope of zero would not keep away. Where a query sees one, its slopes are NaN already.
  for (int careful = 0; careful < 2; ++careful) {
    clear(dq);
    fetch<STEP>(k, K, p.K.row, 0, S, E);
    fetch<STEP>(v, V, p.V.row, 0, S, E);
    cp_async_commit();
    for (int first = 0; first < stop; first += STEP) {
      int stage = first / STEP % 2 * STEP * PITCH, other = STEP * PITCH - stage;
      cp_async_wait<0>();
      __syncthreads();
      if (first + STEP < stop) {
        fetch<STEP>(k + other, K, p.K.row, first + STEP, S, E);
        fetch<STEP>(v + other, V, p.V.row, first + STEP, S, E);
      }
      cp_async_commit();
      if (own >= L || (p.causal && first > own + 16 * BLOCKS - 1)) continue;

      float weights[BLOCKS][STEP / 8][4], slopes[BLOCKS][STEP / 8][4];
      multiply_rows(weights, q_rows, k + stage);
      multiply_rows(slopes, do_rows, v + stage);
      if (DROPOUT) drop(slopes, p, (long long)head * L + own, first / 8);
      bool edge = mask || first + STEP > S || (p.causal && first + STEP - 1 > own);
#pragma unroll
      for (int m = 0; m < BLOCKS; ++m)
#pragma unroll
        for (int n = 0; n < STEP / 8; ++n)
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            float weight = exp2_approx(c * weights[m][n][j] - base[m][j / 2]);
            float &slope = slopes[m][n][j];
            slope = weight * (slope - dot[m][j / 2]);
            if (edge && !visible(sight, min(own + 16 * m + j / 2 * 8 + lane / 4, L - 1),
                                 first + 8 * n + lane % 4 * 2 + j % 2))
              slope = 0.0f;
          }
      accumulate(dq, slopes, k + stage, careful);
    }
    bool nan = false;
#pragma unroll
    for (int m = 0; m < BLOCKS; ++m)
#pragma unroll
      for (int e = 0; e < HEAD / 8; ++e)
#pragma unroll
        for (int j = 0; j < 4; ++j) nan = nan || dq[m][e][j] != dq[m][e][j];
    if (!__syncthreads_or(nan)) break;
  }
#pragma unroll
  for (int m = 0; m < BLOCKS; ++m)
#pragma unroll
    for (int e = 0; e < HEAD / 8; ++e)
#pragma unroll
      for (int j = 0; j < 4; ++j) dq[m][e][j] *= p.scale;
  write_rows(dq, q_rows, dQ + ((long long)b * L * p.H + h) * E, (long long)p.H * E, own, L, E);
}
