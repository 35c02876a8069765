// A row in the registers of a team: a warp, or the whole block where the row is wide.
//
// Thread t of a team holds packs t, t + TEAM, ... of the row, PACKS of LANES neighbours each, so
// that memory is read once, 16 bytes at a time. The launcher compiles TEAM and PACKS in.
#pragma once
#include "common.cuh"

#ifndef TEAM
#define TEAM WARP
#define PACKS 2
#endif
#define BLOCK (TEAM == WARP ? 128 : TEAM)  // threads; of warps, four rows at a time

typedef float Row[PACKS][LANES];

__device__ inline int team() { return threadIdx.x / TEAM; }
__device__ inline int teams() { return blockDim.x / TEAM; }
__device__ inline int first_row() { return blockIdx.x * teams() + team(); }
__device__ inline int column(int k, int j) { return (k * TEAM + threadIdx.x % TEAM) * LANES + j; }

// What follows is done for each number that the thread holds of a row.
#define EACH(k, j, width)                                 \
  _Pragma("unroll") for (int k = 0; k < PACKS; ++k)       \
      _Pragma("unroll") for (int j = 0; j < LANES; ++j)   \
          if (column(k, j) < width)

template <typename T> __device__ inline void load_row(const T *row, int width, Row &v) {
#pragma unroll
  for (int k = 0; k < PACKS; ++k) load_pack(row + column(k, 0), width - column(k, 0), v[k]);
}

template <typename T> __device__ inline void store_row(T *row, int width, const Row &v) {
#pragma unroll
  for (int k = 0; k < PACKS; ++k) store_pack(row + column(k, 0), width - column(k, 0), v[k]);
}

__device__ inline float team_sum(float v, float *slots) {
  return TEAM == WARP ? warp_sum(v) : block_sum(v, slots);
}

__device__ inline float team_max(float v, float *slots) {
  return TEAM == WARP ? warp_max(v) : block_max(v, slots);
}
