// Runs a CUDA kernel on the CPU: a fiber per thread, warps and lanes scheduled in random order.
//
// A fiber runs until it meets a barrier or its warp (a shuffle, a tensor-core product). Whoever
// forgot a barrier is found out, because another warp may be far ahead or far behind. One block
// runs at a time, so `__shared__` memory is static, filled with NaN before each block.
//
// Of the tensor cores: mma and ldmatrix exchange registers between lanes as the PTX ISA lays
// them out; a cp.async puts NaN at its target at once and the data there when its group is
// waited for, which is how late it may come. ldmatrix counts bank conflicts.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__ static
#define __noinline__
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static __attribute__((section("block_memory")))
extern char __start_block_memory[] __attribute__((weak));
extern char __stop_block_memory[] __attribute__((weak));

// Storage types: conversion to float and back, rounding to nearest even.
typedef _Float16 __half;
struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  __nv_bfloat16(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    bits = value != value ? 0x7fc0 : (word + 0x7fff + (word >> 16 & 1)) >> 16;
  }
  operator float() const {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
  }
};
#ifndef SCALAR
#define SCALAR float
#endif

namespace shim {

enum State { READY, AT_BARRIER, AT_MEETING, DONE };

struct Copy {
  void *to;
  const void *from;  // null for zeros
  unsigned bytes, group;
};

struct Fiber {
  ucontext_t context;
  State state;
  unsigned index;
  unsigned turn, votes;  // two sets of slots, taken in turns, so nobody overwrites early
  unsigned slot[2][8];
  const char *what[2];
  int vote[2];
  unsigned group;  // of the copies being issued
  std::vector<Copy> copies;
  std::vector<char> stack;
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static Fiber *current;
static std::function<void()> body;
static const char *fault;
static unsigned char *dynamic;
static size_t dynamic_bytes;
static unsigned long long conflicts;

static void wait(State state) {
  current->state = state;
  swapcontext(&current->context, &scheduler);
}

static void fail(const char *why) {
  fault = why;
  wait(DONE);
}

static void enter() {
  body();
  if (!current->copies.empty()) fail("a thread leaves while its copies are under way");
  wait(DONE);
}

// Every lane of a warp hands in some registers and waits; returns the slot that holds them.
static unsigned meet(const char *what, const void *registers, size_t bytes) {
  unsigned turn = current->turn++ % 2, first = current->index & ~31u;
  memcpy(current->slot[turn], registers, bytes);
  current->what[turn] = what;
  wait(AT_MEETING);
  for (unsigned i = first; i < std::min<size_t>(first + 32, fibers.size()); ++i)
    if (strcmp(fibers[i].what[turn], what)) fail("lanes of a warp are at different instructions");
  return turn;
}

template <class T>
static T theirs(unsigned turn, unsigned lane, unsigned word = 0) {
  T value;
  memcpy(&value, &fibers[(current->index & ~31u) + (lane & 31u)].slot[turn][word], sizeof(T));
  return value;
}

template <class T>
static T exchange(T value, unsigned source) {
  return theirs<T>(meet("shuffle", &value, sizeof(T)), source);
}

static unsigned ballot(bool vote) {
  unsigned mine = vote, turn = meet("ballot", &mine, 4), all = 0;
  for (unsigned lane = 0; lane < 32; ++lane) all |= theirs<unsigned>(turn, lane) << lane;
  return all;
}

static int barrier_or(int vote) {
  unsigned turn = current->votes++ % 2;
  current->vote[turn] = vote;
  wait(AT_BARRIER);
  return std::any_of(fibers.begin(), fibers.end(), [=](Fiber &f) { return f.vote[turn] != 0; });
}

static void check_shared(const void *p, size_t bytes, const char *why) {
  const unsigned char *byte = (const unsigned char *)p;
  if ((uintptr_t)p % bytes) fail(why);
  if (byte < dynamic || byte + bytes > dynamic + dynamic_bytes)
    fail("an address outside of the block's shared memory");
}

static void copy_async(void *to, const void *from, bool inside, unsigned bytes) {
  check_shared(to, bytes, "cp.async to an unaligned address");
  if ((uintptr_t)from % bytes) fail("cp.async from an unaligned address");
  memset(to, 0xff, bytes);
  current->copies.push_back({to, inside ? from : nullptr, bytes, current->group});
}

static void wait_copies(unsigned under_way) {
  std::vector<Copy> later;
  for (Copy &c : current->copies)
    if (c.group + under_way >= current->group)
      later.push_back(c);
    else if (c.from)
      memcpy(c.to, c.from, c.bytes);
    else
      memset(c.to, 0, c.bytes);
  current->copies = later;
}

// Eight rows of 16 bytes are read at once: two in the same banks cost a second turn.
static void count_conflicts(unsigned turn) {
  for (unsigned matrix = 0; matrix < 4; ++matrix)
    for (unsigned i = 0; i < 8; ++i)
      for (unsigned j = 0; j < i; ++j) {
        uintptr_t a = theirs<uintptr_t>(turn, 8 * matrix + i);
        uintptr_t b = theirs<uintptr_t>(turn, 8 * matrix + j);
        conflicts += a != b && (a / 16 - b / 16) % 8 == 0;
      }
}

static void load_matrices(unsigned *r, const void *row, bool transposed) {
  check_shared(row, 16, "ldmatrix from an unaligned address");
  unsigned turn = meet(transposed ? "ldmatrix.trans" : "ldmatrix", &row, sizeof row);
  unsigned lane = current->index % 32, g = lane / 4, t = lane % 4;
  if (lane == 0) count_conflicts(turn);
  for (unsigned i = 0; i < 4; ++i)
    for (unsigned k = 0; k < 2; ++k) {
      unsigned line = transposed ? 2 * t + k : g, column = transposed ? g : 2 * t + k;
      const uint16_t *from = (const uint16_t *)theirs<uintptr_t>(turn, 8 * i + line);
      r[i] = k ? (r[i] & 0xffffu) | (unsigned)from[column] << 16 : from[column];
    }
}

static float half_of(unsigned both, unsigned k) {
  uint16_t bits = k ? both >> 16 : both;
  SCALAR value;
  memcpy(&value, &bits, 2);
  return value;
}

static void multiply(float *c, const unsigned *a, unsigned b0, unsigned b1) {
  unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1}, turn = meet("mma", mine, sizeof mine);
  unsigned lane = current->index % 32, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i) {
    unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      unsigned pair = k % 8 / 2;
      unsigned from_a = theirs<unsigned>(turn, row % 8 * 4 + pair, row / 8 + k / 8 * 2);
      unsigned from_b = theirs<unsigned>(turn, column * 4 + pair, 4 + k / 8);
      c[i] += half_of(from_a, k % 2) * half_of(from_b, k % 2);
    }
  }
}

// Let the lanes of a warp run, in random order, until all wait; returns how many ran.
static unsigned run_warp(unsigned first, unsigned last, std::mt19937 &random) {
  std::vector<unsigned> lanes;
  for (unsigned i = first; i < last; ++i)
    if (fibers[i].state == READY) lanes.push_back(i);
  std::shuffle(lanes.begin(), lanes.end(), random);
  for (unsigned i : lanes) {
    current = &fibers[i];
    threadIdx.x = i;
    swapcontext(&scheduler, &current->context);
    if (fault) return 0;
  }
  unsigned meeting = 0, gone = 0;
  for (unsigned i = first; i < last; ++i) {
    meeting += fibers[i].state == AT_MEETING;
    gone += fibers[i].state == DONE;
  }
  if (meeting == last - first)
    for (unsigned i = first; i < last; ++i) fibers[i].state = READY;
  else if (meeting && gone)
    fault = "a shuffle waits for lanes that have left";
  return lanes.size();
}

// Run one block; returns false when some threads wait for others that have left.
static bool run_block(unsigned threads, std::mt19937 &random) {
  fibers.resize(threads);
  if (__start_block_memory)
    memset(__start_block_memory, 0xff, __stop_block_memory - __start_block_memory);
  memset(dynamic, 0xff, dynamic_bytes);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber &f = fibers[i];
    f.stack.resize(64 * 1024);
    f.state = READY;
    f.index = i;
    f.turn = f.votes = f.group = 0;
    f.copies.clear();
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  std::vector<unsigned> warps;
  for (unsigned first = 0; first < threads; first += 32) warps.push_back(first);
  for (;;) {
    unsigned ran = 0, done = 0, barrier = 0, ready = 0;
    std::shuffle(warps.begin(), warps.end(), random);
    for (unsigned first : warps) {
      // a few steps, or as far as it gets: a warp may be far ahead of the others
      unsigned steps = random() % 4 ? 1 + random() % 16 : ~0u;
      for (unsigned more = 1; steps && more; --steps) {
        ran += more = run_warp(first, std::min(first + 32, threads), random);
        if (fault) return false;
      }
    }
    for (Fiber &f : fibers) {
      done += f.state == DONE;
      barrier += f.state == AT_BARRIER;
      ready += f.state == READY;
    }
    if (done == threads) return true;
    if (barrier == threads) {
      for (Fiber &f : fibers) f.state = READY;
    } else if (!ran && !ready) {
      fault = barrier + done == threads ? "a barrier waits for threads that have left"
                                        : "threads wait for each other at different places";
      return false;
    }
  }
}

static const char *run(dim3 grid, unsigned threads, unsigned shared, unsigned seed,
                       std::function<void()> kernel) {
  std::mt19937 random(seed);
  std::vector<unsigned char> memory(shared + 128);
  gridDim = grid;
  blockDim = dim3{threads, 1, 1};
  body = kernel;
  fault = nullptr;
  conflicts = 0;
  dynamic = memory.data() + (128 - (uintptr_t)memory.data() % 128) % 128;
  dynamic_bytes = shared;
  for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
      if (!run_block(threads, random)) return fault;
  return conflicts ? "ldmatrix: rows in the same banks" : nullptr;
}

}  // namespace shim

#define DYNAMIC_SHARED(name) unsigned char *name = shim::dynamic
#define __syncthreads() shim::wait(shim::AT_BARRIER)
static inline int __syncthreads_or(int vote) { return shim::barrier_or(vote); }
static inline void __syncwarp() { shim::ballot(false); }
static inline unsigned __ballot_sync(unsigned, bool vote) { return shim::ballot(vote); }
template <class T>
static inline T __shfl_sync(unsigned, T v, int lane) {
  return shim::exchange(v, lane);
}
template <class T>
static inline T __shfl_xor_sync(unsigned, T v, int mask) {
  return shim::exchange(v, shim::current->index ^ mask);
}
using std::max;
using std::min;
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned __int128)a * b >> 64;
}

// What mma.cuh is on a GPU.
static inline void mma_m16n8k16(float *c, const unsigned *a, unsigned b0, unsigned b1) {
  shim::multiply(c, a, b0, b1);
}
static inline void ldmatrix_x4(unsigned *r, const void *row) { shim::load_matrices(r, row, false); }
static inline void ldmatrix_x4_trans(unsigned *r, const void *row) {
  shim::load_matrices(r, row, true);
}
static inline void cp_async_16(void *shared, const void *global, bool inside) {
  shim::copy_async(shared, global, inside, 16);
}
static inline void cp_async_4(void *shared, const void *global, bool inside) {
  shim::copy_async(shared, global, inside, 4);
}
static inline void cp_async_commit() { ++shim::current->group; }
template <int N>
static inline void cp_async_wait() {
  shim::wait_copies(N);
}
static inline float exp2_approx(float x) { return exp2f(x); }
static inline unsigned pack(float low, float high) {
  SCALAR both[2] = {(SCALAR)low, (SCALAR)high};
  unsigned word;
  memcpy(&word, both, 4);
  return word;
}
