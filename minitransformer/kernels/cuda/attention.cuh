// What the two attention files share: the sizes and layout of a problem, and who sees whom.
#pragma once
#include "common.cuh"
#include "philox.cuh"

typedef unsigned char strided_bool;

#ifndef DROPOUT
#define DROPOUT 0  // of the weights
#endif
#define LOG2E 1.4426950408889634f

// Distances in elements. The entries of a row are neighbours.
struct Strides {
  long long batch, head, row;
};

// Q, O and dO (B, H, L, E), K and V (B, G, S, E), mask (B, H, L, S); R = H / G query heads share
// a key-value head. Gradients lie as (B, L, H, E) and (B, S, G, E), as the layers around attention
// have them, and lse and D as (B, H, L).
struct Problem {
  Strides Q, K, V, O, dO, mask;
  long long mask_column;
  u64 step, operation, seed;  // of the dropout's stream
  int H, R, L, S, E, causal;
  float scale;
  unsigned threshold;  // numbers of the stream below it drop a weight
  float kept;          // 1 / (1 - p)
};

template <class T>
__device__ inline T *head_of(T *x, const Strides &strides, int b, int h) {
  return x + b * strides.batch + h * strides.head;
}

// Which keys the queries of one head see.
struct Sight {
  const strided_bool *mask;
  long long row, column;
  int S, causal;
};

__device__ inline Sight sight_of(const Problem &p, const strided_bool *mask, int b, int h) {
  if (mask) mask += b * p.mask.batch + h * p.mask.head;
  return {mask, p.mask.row, p.mask_column, p.S, p.causal};
}

__device__ inline bool visible(const Sight &sight, int query, int key) {
  if (key >= sight.S || (sight.causal && key > query)) return false;
  return !sight.mask || sight.mask[query * sight.row + key * sight.column];
}

// Which of the keys 8 group ... 8 group + 7 a query keeps, a bit each. Line (b, h, query) of the
// weights has a stretch of the stream to itself, whose length is a multiple of 8.
__device__ inline unsigned keep_bits(const Problem &p, long long line, int group) {
  u64 words[4];
  philox(line * ((p.S + 7) / 8) + group + 1, p.step, p.operation, p.seed, words);
  unsigned bits = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k) bits |= (unsigned)(number(words, k) >= p.threshold) << k;
  return bits;
}

// One row of the output again by one warp, straight from memory, for the few that come out NaN
// without a NaN in their weights: here a weight of zero meets no NaN and no infinity, so that
// what is hidden stays hidden.
__device__ __noinline__ void careful_row(const scalar *q, const scalar *K, long long k_row,
                                         const scalar *V, long long v_row, const Sight &sight,
                                         const Problem &problem, long long line, int query,
                                         float c, scalar *out) {
  const int columns = 4;  // of the row, for each lane
  int lane = threadIdx.x % WARP, E = problem.E, stop = sight.causal ? min(sight.S, query + 1) : sight.S;
  float m = -INFINITY, l = 0.0f, o[columns];
  for (int i = 0; i < columns; ++i) o[i] = 0.0f;
  for (int first = 0; first < stop; first += WARP) {
    int key = first + lane;
    bool seen = visible(sight, query, key);
    float s = -INFINITY;
    if (seen) {
      s = 0.0f;
      for (int e = 0; e < E; ++e) s += load(q, e) * load(K, key * k_row + e);
      s *= c;
    }
    float top = fmaxf(m, warp_max(s)), base = top == -INFINITY ? 0.0f : top;
    float p = seen ? exp2f(s - base) : 0.0f, decay = exp2f(m - base);
    l = l * decay + warp_sum(p);
    m = top;
    if (DROPOUT) p *= keep_bits(problem, line, key / 8) >> key % 8 & 1 ? problem.kept : 0.0f;
    for (int i = 0; i < columns; ++i) o[i] *= decay;
    for (int j = 0; j < WARP; ++j) {
      float weight = __shfl_sync(FULL, p, j);
      if (weight == 0.0f) continue;
      for (int i = 0; i < columns; ++i)
        if (lane + i * WARP < E) o[i] += weight * load(V, (first + j) * v_row + lane + i * WARP);
    }
  }
  for (int i = 0; i < columns; ++i)
    if (lane + i * WARP < E) store(out, lane + i * WARP, l == 0.0f ? 0.0f : o[i] / l);
}
