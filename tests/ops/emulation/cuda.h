// CUDA's built-ins on the CPU, for kernels that shall be tested where there is no GPU: every thread of a block is a
// fiber, which runs until it waits for others. A program that a GPU would hang on, or answer as it likes, is stopped:
// threads missing at a barrier or a shuffle, unaligned vector atomics.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __device__
#define __global__
#define __shared__ static  // one block runs at a time
#define __forceinline__ inline
#define __launch_bounds__(...)

using std::exp, std::fabs, std::frexp, std::ldexp;

struct Dimensions {
  unsigned x = 1, y = 1;
};
static Dimensions threadIdx, blockIdx, blockDim, gridDim;

struct float4 {
  float x, y, z, w;
};

namespace emulation {

[[noreturn]] inline void stop(const char* why) {
  std::fprintf(stderr, "emulation: %s\n", why);
  std::abort();
}

struct Thread {
  ucontext_t context;
  bool done = false;
  int64_t barriers = 0, shuffles = 0;  // reached so far
  unsigned char sent[2][8];            // by the last two shuffles
};

static std::vector<Thread> threads;
static std::vector<std::vector<char>> stacks;  // kept from block to block
static ucontext_t scheduler;
static unsigned current;
static std::function<void()> body;

inline void wait() {
  swapcontext(&threads[current].context, &scheduler);
  threadIdx.x = current;
}

// Waits until all threads that `counts` names have come as far as the caller.
template <typename Counts>
void wait_for(int64_t Thread::* progress, const Counts& counts) {
  const int64_t mine = ++(threads[current].*progress);
  const auto is_behind = [&](unsigned other) {
    const Thread& thread = threads[other];
    if (counts(other) && thread.*progress < mine && thread.done) {
      stop("a thread has left that others wait for");
    }
    return counts(other) && thread.*progress < mine;
  };
  for (unsigned other = 0; other < threads.size();) {
    if (is_behind(other)) {
      wait();
    } else {
      ++other;
    }
  }
}

inline void enter() {
  body();
  threads[current].done = true;
  wait();
}

inline void run_block(unsigned count) {
  threads.assign(count, Thread{});
  stacks.resize(std::max<size_t>(stacks.size(), count), std::vector<char>(1 << 17));
  for (unsigned i = 0; i < count; ++i) {
    ucontext_t& context = threads[i].context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks[i].data();
    context.uc_stack.ss_size = stacks[i].size();
    makecontext(&context, enter, 0);
  }
  for (unsigned left = count, turn = 0; left > 0; ++turn) {
    left = 0;
    for (unsigned i = 0; i < count; ++i) {
      current = (i * 7 + turn * 13) % count;  // another first thread in every turn; 7 reaches all, count is no multiple
      if (!threads[current].done) {
        threadIdx.x = current;
        swapcontext(&scheduler, &threads[current].context);
        left += !threads[current].done;
      }
    }
  }
}

// kernel<<<grid, block>>>(...), where f calls the kernel.
inline void launch(Dimensions grid, unsigned block, const std::function<void()>& f) {
  body = f;
  gridDim = grid;
  blockDim = {block, 1};
  for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
      run_block(block);
    }
  }
}

}  // namespace emulation

inline void __syncthreads() {
  emulation::wait_for(&emulation::Thread::barriers, [](unsigned) { return true; });
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width) {
  using namespace emulation;
  const unsigned me = current, warp = me / 32 * 32, other = warp + (me % 32 ^ distance);
  const auto named = [=](unsigned thread) { return thread / 32 * 32 == warp && (mask >> thread % 32 & 1); };
  if (!named(me) || !named(other) || me / width != other / width || other >= threads.size()) {
    stop("a shuffle beyond its mask, width or block");
  }
  const int slot = threads[me].shuffles % 2;
  std::memcpy(threads[me].sent[slot], &value, sizeof(T));
  wait_for(&Thread::shuffles, named);
  std::memcpy(&value, threads[other].sent[slot], sizeof(T));
  return value;
}

template <typename T>
void atomicAdd(T* address, T value) {
  *address += value;
}

inline void atomicAdd(float4* address, float4 value) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) {
    emulation::stop("an unaligned vector atomic");
  }
  address->x += value.x;
  address->y += value.y;
  address->z += value.z;
  address->w += value.w;
}

inline void atomicMax(unsigned* address, unsigned value) { *address = std::max(*address, value); }

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float __double2float_ru(double value) {
  const float nearest = static_cast<float>(value);
  return nearest < value ? std::nextafter(nearest, INFINITY) : nearest;
}

// Of NaN and of what is too large, a GPU makes this number too.
inline long long __double2ll_rn(double value) { return std::fabs(value) < 0x1p63 ? std::llrint(value) : INT64_MIN; }
