// The stateless stream of backend/random.py: Philox4x64-10, the same bits as NumPy's.
#pragma once

typedef unsigned long long u64;

__device__ inline void philox(u64 counter, u64 step, u64 operation, u64 seed, u64 out[4]) {
  u64 c0 = counter, c1 = step, c2 = operation, c3 = 0, k0 = seed, k1 = 0;
  for (int round = 0; round < 10; ++round) {
    u64 high0 = __umul64hi(0xD2E7470EE14C6C93ULL, c0), low0 = 0xD2E7470EE14C6C93ULL * c0;
    u64 high1 = __umul64hi(0xCA5A826395121157ULL, c2), low1 = 0xCA5A826395121157ULL * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B97F4A7C15ULL;
    k1 += 0xBB67AE8584CAA73BULL;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

// The numbers 8 j ... 8 j + 7 of the stream come from counter j + 1, low halves first.
__device__ inline unsigned number(const u64 words[4], int k) {
  return (unsigned)(words[k / 2] >> (k % 2 ? 32 : 0));
}
