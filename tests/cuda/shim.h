// Runs a CUDA kernel on the CPU: a fiber per thread, warps and lanes scheduled in random order.
//
// A fiber runs until it meets a barrier or a shuffle. Whoever forgot a barrier is found out,
// because another warp may be far ahead or far behind. One block runs at a time, so
// `__shared__` memory is a static array, filled with NaN before each block.
#pragma once

#include <ucontext.h>

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
static dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__ static
#define __shared__ static

namespace shim {

enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };

struct Fiber {
  ucontext_t context;
  State state;
  unsigned index, turn;  // `turn` counts shuffles: two sets of slots, so nobody overwrites early
  float slot[2];
  std::vector<char> stack;
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static Fiber *current;
static std::function<void()> body;
static const char *fault;

static void enter() {
  body();
  current->state = DONE;
  swapcontext(&current->context, &scheduler);
}

static void wait(State state) {
  current->state = state;
  swapcontext(&current->context, &scheduler);
}

static float exchange(float value, unsigned source) {
  unsigned turn = current->turn++ % 2;
  current->slot[turn] = value;
  wait(AT_SHUFFLE);
  return fibers[(current->index & ~31u) + (source & 31u)].slot[turn];
}

// Run one block; returns false when some threads wait for others that have left.
static bool run_block(unsigned threads, std::mt19937 &random) {
  fibers.resize(threads);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber &f = fibers[i];
    f.stack.resize(64 * 1024);
    f.state = READY;
    f.index = i;
    f.turn = 0;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  std::vector<unsigned> order(threads);
  for (;;) {
    unsigned ready = 0, done = 0, barrier = 0;
    unsigned warps = (threads + 31) / 32;
    std::vector<unsigned> sequence(warps);
    for (unsigned w = 0; w < warps; ++w) sequence[w] = w;
    for (unsigned w = warps; w > 1; --w) std::swap(sequence[w - 1], sequence[random() % w]);
    for (unsigned w : sequence) {
      unsigned first = 32 * w, last = std::min(first + 32, threads), shuffling = 0, gone = 0;
      std::vector<unsigned> lanes;
      for (unsigned i = first; i < last; ++i) lanes.push_back(i);
      for (size_t n = lanes.size(); n > 1; --n) std::swap(lanes[n - 1], lanes[random() % n]);
      for (unsigned i : lanes)
        if (fibers[i].state == READY) {
          current = &fibers[i];
          threadIdx.x = i;
          ++ready;
          swapcontext(&scheduler, &current->context);
        }
      for (unsigned i = first; i < last; ++i) {
        shuffling += fibers[i].state == AT_SHUFFLE;
        gone += fibers[i].state == DONE;
      }
      if (shuffling == last - first)
        for (unsigned i = first; i < last; ++i) fibers[i].state = READY;
      else if (shuffling && gone) {
        fault = "a shuffle waits for lanes that have left";
        return false;
      }
    }
    for (Fiber &f : fibers) {
      done += f.state == DONE;
      barrier += f.state == AT_BARRIER;
    }
    if (done == threads) return true;
    if (barrier == threads)
      for (Fiber &f : fibers) f.state = READY;
    else if (!ready && barrier + done == threads) {
      fault = "a barrier waits for threads that have left";
      return false;
    } else if (!ready) {
      bool shuffled = false;
      for (Fiber &f : fibers) shuffled |= f.state == READY;
      if (!shuffled) {
        fault = "threads wait for each other at different places";
        return false;
      }
    }
  }
}

static const char *run(dim3 grid, unsigned threads, unsigned seed, std::function<void()> kernel) {
  std::mt19937 random(seed);
  gridDim = grid;
  blockDim = dim3{threads, 1, 1};
  body = kernel;
  fault = nullptr;
  for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
      if (!run_block(threads, random)) return fault;
  return nullptr;
}

}  // namespace shim

#define __syncthreads() shim::wait(shim::AT_BARRIER)
static inline float __shfl_sync(unsigned, float v, int lane) { return shim::exchange(v, lane); }
static inline float __shfl_xor_sync(unsigned, float v, int mask) {
  return shim::exchange(v, shim::current->index ^ mask);
}
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned __int128)a * b >> 64;
}
