// The CUDA kernels of DCNv3, without torch: any shape, 64-bit indices.
//
// The unit of work is an item, one group of one output pixel. A block takes neighbouring items, whose offsets and masks
// lie side by side in memory, and works in two steps: one thread per sample computes its place and weights, once, into
// shared memory; then a team of lanes per item, each with `Width` neighbouring channels, reads the samples' corners. At
// 16 or 32 channels per group, as published, each of these reads is one of 16 bytes.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "../dcnv3.h"

#define DCNV3_INLINE __device__ __forceinline__

namespace dcnv3::cuda {

#include "../sample.h"

constexpr int kMaxThreads = 256;
constexpr int kMaxItems = 64;          // of a block
constexpr int kForwardSamples = 576;   // staged at a time: 64 items of 9 points
constexpr int kBackwardSamples = 288;  // 32 items of 9 points; they take more room each

// Blocks that a multiprocessor must have room for. They leave 80 and 128 registers per thread, so that the corners of
// several samples can be under way at once.
constexpr int kForwardBlocks = 3;
constexpr int kBackwardBlocks = 2;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool kHasVectorAtomics = true;  // on four floats at once
#else
constexpr bool kHasVectorAtomics = false;
#endif

// How a block divides its work. Lanes is a power of two, at most 32, so that no team straddles warps.
struct Tile {
  int lanes;   // per item
  int items;   // per block; the block has lanes * items threads
  int points;  // of each item, staged at a time
};

// Few lanes leave room for many items in a block of 256 threads; more than `most` would exceed its shared memory.
inline Tile choose_tile(const Params& p, int width, int most, int samples) {
  const auto lanes =
      static_cast<int>(std::min<uint64_t>(32, std::bit_ceil<uint64_t>((p.group_channels + width - 1) / width)));
  const int items = std::min(most, kMaxThreads / lanes);
  return {lanes, items, static_cast<int>(std::min<int64_t>(p.points(), samples / items))};
}

template <typename T, int Width>
struct alignas(sizeof(T) * Width) Vector {
  T at[Width];
};

template <int Width, typename T>
__device__ __forceinline__ Vector<T, Width> load(const T* address) {
  return *reinterpret_cast<const Vector<T, Width>*>(address);
}

// Zeros where nothing may be read. No branch, so that the loads of several samples can be under way at once.
template <int Width, typename T>
__device__ __forceinline__ Vector<T, Width> load_if(bool wanted, const T* address) {
  return wanted ? load<Width>(address) : Vector<T, Width>{};
}

// What an item's samples have in common.
template <typename T>
struct Item {
  int64_t image;          // where its image and group begin in the input
  T centre_y, centre_x;   // of its grid, in pixels
  T largest, normaliser;  // of its logits: exp(logit - largest) * normaliser is the weight
  T mean;                 // of the gradients of its weights, under these weights

  Item() = default;

  // Of an item of the image `number`; its samples begin at `at` in the mask.
  template <typename scalar_t>
  __device__ Item(
      const Params& p, int64_t number, uint32_t index, int64_t at, bool mask_is_logits, const scalar_t* mask)
      : mean(0) {
    const uint32_t groups = static_cast<uint32_t>(p.groups), width = p.x.out_size;
    const uint32_t pixel = index / groups, row = pixel / width;
    image = number * p.image_size() + (index - pixel * groups) * p.group_channels;
    centre_y = static_cast<T>(p.y.centre(row));
    centre_x = static_cast<T>(p.x.centre(pixel - row * width));
    if (!mask_is_logits) {
      return;
    }
    const scalar_t* const logits = mask + at;
    largest = static_cast<T>(logits[0]);
    for (int64_t point = 1; point < p.points(); ++point) {
      const T logit = static_cast<T>(logits[point]);
      largest = logit > largest ? logit : largest;
    }
    T sum = 0;
    for (int64_t point = 0; point < p.points(); ++point) {
      sum += exp(static_cast<T>(logits[point]) - largest);
    }
    normaliser = 1 / sum;
  }

  __device__ T weight(T mask, bool mask_is_logits) const {
    return mask_is_logits ? exp(mask - largest) * normaliser : mask;
  }
};

// The pixels of a sample's corners; negative where the sample lies outside and none may be read.
struct alignas(16) Corners {
  int32_t at[4];
  __device__ bool inside() const { return at[0] >= 0; }
};

template <typename T>
struct Sides {
  Neighbours<T> y, x;
};

// Place of one sample, from its pair of offsets.
template <typename T, typename scalar_t>
__device__ Sides<T> locate(const Params& p, const Item<T>& item, int point, const scalar_t* offset) {
  const T scale = static_cast<T>(p.offset_scale);
  const T tap_y = static_cast<T>(p.y.tap(point % p.y.kernel)), tap_x = static_cast<T>(p.x.tap(point / p.y.kernel));
  return {
      neighbours<T>(sample_position(item.centre_y, tap_y, static_cast<T>(offset[1]), scale), p.y.size),
      neighbours<T>(sample_position(item.centre_x, tap_x, static_cast<T>(offset[0]), scale), p.x.size)};
}

template <typename T>
__device__ Corners corners_of(const Params& p, const Sides<T>& side) {
  if (side.y.inside * side.x.inside == T(0)) {
    return {{-1, -1, -1, -1}};
  }
  const int32_t low = side.y.low * p.x.size, high = side.y.high * p.x.size;
  return {{low + side.x.low, low + side.x.high, high + side.x.low, high + side.x.high}};
}

// Neighbouring items of one image.
struct Block {
  int64_t number;  // of the image
  int64_t first;   // item of that image
  int64_t at;      // the same item, among all
  int count;

  template <typename T, typename scalar_t>
  __device__ void stage(const Params& p, bool mask_is_logits, const scalar_t* mask, Item<T>* items) const {
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      items[i] = Item<T>(p, number, static_cast<uint32_t>(first + i), (at + i) * p.points(), mask_is_logits, mask);
    }
  }
};

// Calls f(block) for the share of this block of threads in all items, and waits for all threads between the calls.
template <typename F>
__device__ void for_each_block(const Params& p, const Tile& tile, const F& f) {
  const int64_t per_image = p.out_pixels() * p.groups;
  for (int64_t number = blockIdx.y; number < p.batch; number += gridDim.y) {
    for (int64_t first = int64_t(blockIdx.x) * tile.items; first < per_image;
         first += int64_t(gridDim.x) * tile.items) {
      const int64_t left = per_image - first;
      f(Block{number, first, number * per_image + first, static_cast<int>(left < tile.items ? left : tile.items)});
      __syncthreads();
    }
  }
}

template <typename scalar_t, typename T, int Width>
__global__ void __launch_bounds__(kMaxThreads, kForwardBlocks) forward_kernel(
    Params p, Tile tile, bool mask_is_logits, const scalar_t* __restrict__ input, const scalar_t* __restrict__ offset,
    const scalar_t* __restrict__ mask, scalar_t* __restrict__ output) {
  __shared__ Item<T> items[kMaxItems];
  __shared__ Vector<T, 4> weights[kForwardSamples];  // of the corners, times the sample's own
  __shared__ Corners corners[kForwardSamples];

  const int points = static_cast<int>(p.points());
  const int64_t channels = p.channels();
  const int lane = threadIdx.x % tile.lanes, mine = threadIdx.x / tile.lanes;
  for_each_block(p, tile, [&](const Block& block) {
    block.stage(p, mask_is_logits, mask, items);
    for (int64_t begin = 0; begin < p.group_channels; begin += tile.lanes * Width) {
      const int64_t channel = begin + lane * Width;
      const bool active = mine < block.count && channel < p.group_channels;
      T sums[Width] = {};
      for (int from = 0; from < points; from += tile.points) {
        const int now = points - from < tile.points ? points - from : tile.points;
        __syncthreads();  // items are there; the samples before have been read
        for (int s = threadIdx.x; s < block.count * now; s += blockDim.x) {
          const Item<T>& item = items[s / now];
          const int point = from + s % now;
          const int64_t at = (block.at + s / now) * points + point;
          const Sides<T> side = locate(p, item, point, offset + 2 * at);
          const T weight = item.weight(static_cast<T>(mask[at]), mask_is_logits);
          const CornerWeights<T> corner = corner_weights(side.y, side.x);
          weights[s] = {
              {corner.value[0] * weight, corner.value[1] * weight, corner.value[2] * weight, corner.value[3] * weight}};
          corners[s] = corners_of(p, side);
        }
        __syncthreads();
        if (!active) {
          continue;
        }
        const scalar_t* const image = input + items[mine].image + channel;
#pragma unroll 3
        for (int k = 0; k < now; ++k) {
          const Corners corner = corners[mine * now + k];
          const Vector<T, 4> weight = weights[mine * now + k];
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            const Vector<scalar_t, Width> value = load_if<Width>(corner.inside(), image + corner.at[c] * channels);
#pragma unroll
            for (int v = 0; v < Width; ++v) {
              sums[v] += weight.at[c] * static_cast<T>(value.at[v]);
            }
          }
        }
      }
      if (active) {
        Vector<scalar_t, Width> result;
#pragma unroll
        for (int v = 0; v < Width; ++v) {
          result.at[v] = static_cast<scalar_t>(sums[v]);
        }
        *reinterpret_cast<Vector<scalar_t, Width>*>(output + (block.at + mine) * p.group_channels + channel) = result;
      }
    }
  });
}

// Where contributions to the gradient of the input add up, in no fixed order: the last bits vary from run to run.
template <typename T>
struct FloatSink {
  T* at;  // null where nobody wants that gradient

  __device__ bool wanted() const { return at != nullptr; }

  template <int Width>
  __device__ void add(int64_t index, const T (&values)[Width]) const {
    if constexpr (kHasVectorAtomics && std::is_same_v<T, float> && Width % 4 == 0) {
#pragma unroll
      for (int v = 0; v < Width; v += 4) {
        atomicAdd(
            reinterpret_cast<float4*>(at + index + v),
            make_float4(values[v], values[v + 1], values[v + 2], values[v + 3]));
      }
    } else {
#pragma unroll
      for (int v = 0; v < Width; ++v) {
        atomicAdd(at + index + v, values[v]);
      }
    }
  }
};

// The same in fixed point, where the order does not matter. The unit is a power of two, the least with which no sum can
// overflow; so precision is relative to the largest product of the batch, not to the element's own value. A
// contribution that is not finite has no fixed point: it makes the whole gradient NaN.
struct FixedSink {
  unsigned long long* at;
  double* per_unit;  // see unit_kernel

  __device__ bool wanted() const { return true; }

  template <int Width, typename T>
  __device__ void add(int64_t index, const T (&values)[Width]) const {
#pragma unroll
    for (int v = 0; v < Width; ++v) {
      if (!(fabs(double(values[v])) < INFINITY)) {
        *per_unit = NAN;
      }
      atomicAdd(at + index + v, static_cast<unsigned long long>(__double2ll_rn(values[v] * *per_unit)));
    }
  }
};

// Largest magnitude of some numbers, as the bits of a float, which compare as the floats do; NaN counts as the largest.
template <typename scalar_t>
__global__ void __launch_bounds__(kMaxThreads)
    magnitude_kernel(int64_t count, const scalar_t* __restrict__ numbers, unsigned* __restrict__ largest) {
  __shared__ unsigned of_block;
  if (threadIdx.x == 0) {
    of_block = 0;
  }
  __syncthreads();
  unsigned mine = 0;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) {
    unsigned bits;
    if constexpr (std::is_same_v<scalar_t, double>) {
      bits = __float_as_uint(__double2float_ru(fabs(numbers[i])));
    } else {
      bits = __float_as_uint(fabsf(static_cast<float>(numbers[i])));
    }
    mine = bits > mine ? bits : mine;
  }
  atomicMax(&of_block, mine);
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicMax(largest, of_block);
  }
}

// Units of FixedSink in 1: no contribution exceeds the product of the two magnitudes (of the output's gradient and of
// the weights, at most 1 if softmax makes them), and no element collects more than `contributions`. NaN, which the
// whole gradient then becomes, where a magnitude is not a finite float.
__global__ void unit_kernel(const unsigned* magnitudes, bool mask_is_logits, double contributions, double* per_unit) {
  const double weight = mask_is_logits ? 1.0 : double(__uint_as_float(magnitudes[1]));
  const double bound = double(__uint_as_float(magnitudes[0])) * weight;
  int exponent = 0, bits = 0;
  frexp(bound, &exponent);
  frexp(contributions, &bits);
  *per_unit = bound < INFINITY ? ldexp(1.0, 62 - exponent - bits) : NAN;
}

template <typename T>
__global__ void __launch_bounds__(kMaxThreads) from_fixed_kernel(
    int64_t count, const long long* __restrict__ fixed, const double* per_unit, T* __restrict__ result) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) {
    result[i] = static_cast<T>(double(fixed[i]) / *per_unit);
  }
}

// Sum over the lanes of a team, in every one of them. Other teams of the warp may have nothing to do.
template <typename T>
__device__ T sum_of_team(T value, int lanes) {
  const unsigned ones = lanes == 32 ? ~0u : (1u << lanes) - 1;
  const unsigned team = ones << (threadIdx.x % 32 / lanes * lanes);
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(team, value, distance, lanes);
  }
  return value;
}

template <typename T>
__device__ T dot(const T a[4], const T b[4]) {
  return (a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3]);
}

// What the backward keeps of a sample.
template <typename T>
struct alignas(16) Staged {
  T y[4], x[4];             // weights and slopes of the two neighbours
  T weight;                 // the sample's own
  T by_weight, by_y, by_x;  // gradients
};

// Adds a team's share of the gradients of `now` samples of its item, at the channels from `begin` on, to the staged
// ones, and that of the input's gradient to the sink.
template <int Width, typename scalar_t, typename T, typename Sink>
__device__ void backward_samples(
    const Params& p, const Tile& tile, int now, int64_t begin, int64_t image, bool scatter, const scalar_t* grad_output,
    const scalar_t* input, const Sink& sink, Staged<T>* samples, const Corners* corners) {
  const int lane = threadIdx.x % tile.lanes;
  const int64_t channel = begin + lane * Width, channels = p.channels();
  const bool active = channel < p.group_channels;  // the others add zeros
  const Vector<scalar_t, Width> grads = load_if<Width>(active, grad_output + channel);
  for (int k = 0; k < now; ++k) {
    const Corners corner = corners[k];
    Staged<T>& sample = samples[k];
    const Neighbours<T> y{0, 0, sample.y[0], sample.y[1], sample.y[2], sample.y[3], T(1)};
    const Neighbours<T> x{0, 0, sample.x[0], sample.x[1], sample.x[2], sample.x[3], T(1)};
    const CornerWeights<T> weights = corner_weights(y, x);
    const bool counts = active && corner.inside();
    const int64_t at = image + channel;
    Vector<scalar_t, Width> values[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      values[c] = load_if<Width>(counts, input + at + corner.at[c] * channels);
    }
    T products[4] = {};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const T factor = weights.value[c] * sample.weight;
      T parts[Width];
#pragma unroll
      for (int v = 0; v < Width; ++v) {
        const T grad = static_cast<T>(grads.at[v]);
        products[c] += grad * static_cast<T>(values[c].at[v]);
        parts[v] = factor * grad;
      }
      if (scatter && counts && weights.value[c] != T(0)) {
        sink.add(at + corner.at[c] * channels, parts);
      }
    }
    const T by_weight = sum_of_team(dot(weights.value, products), tile.lanes);
    const T by_y = sum_of_team(dot(weights.by_y, products), tile.lanes);
    const T by_x = sum_of_team(dot(weights.by_x, products), tile.lanes);
    if (lane == 0) {
      sample.by_weight += by_weight;
      sample.by_y += by_y;
      sample.by_x += by_x;
    }
  }
}

// Null pointers are gradients that nobody wants. Under mask_is_logits the gradient of a logit is weight * (gradient of
// the weight - mean of these gradients); where not all points of an item are staged at once, a pass before finds that
// mean.
template <typename scalar_t, typename T, int Width, typename Sink>
__global__ void __launch_bounds__(kMaxThreads, kBackwardBlocks) backward_kernel(
    Params p, Tile tile, bool mask_is_logits, const scalar_t* __restrict__ grad_output,
    const scalar_t* __restrict__ input, const scalar_t* __restrict__ offset, const scalar_t* __restrict__ mask,
    Sink sink, scalar_t* __restrict__ grad_offset, scalar_t* __restrict__ grad_mask) {
  __shared__ Item<T> items[kMaxItems];
  __shared__ Staged<T> samples[kBackwardSamples];
  __shared__ Corners corners[kBackwardSamples];

  const int points = static_cast<int>(p.points());
  const T scale = static_cast<T>(p.offset_scale);
  const int mine = threadIdx.x / tile.lanes;
  const int passes = mask_is_logits && grad_offset != nullptr && points > tile.points ? 2 : 1;
  for_each_block(p, tile, [&](const Block& block) {
    block.stage(p, mask_is_logits, mask, items);
    for (int pass = 0; pass < passes; ++pass) {
      const bool last = pass == passes - 1;
      for (int from = 0; from < points; from += tile.points) {
        const int now = points - from < tile.points ? points - from : tile.points;
        __syncthreads();  // items are there; the samples before have been read
        for (int s = threadIdx.x; s < block.count * now; s += blockDim.x) {
          const Item<T>& item = items[s / now];
          const int point = from + s % now;
          const int64_t at = (block.at + s / now) * points + point;
          const Sides<T> side = locate(p, item, point, offset + 2 * at);
          const T weight = item.weight(static_cast<T>(mask[at]), mask_is_logits);
          samples[s] = {
              {side.y.low_weight, side.y.high_weight, side.y.low_slope, side.y.high_slope},
              {side.x.low_weight, side.x.high_weight, side.x.low_slope, side.x.high_slope},
              weight,
              0,
              0,
              0};
          corners[s] = corners_of(p, side);
        }
        __syncthreads();
        if (mine < block.count) {
          for (int64_t begin = 0; begin < p.group_channels; begin += tile.lanes * Width) {
            backward_samples<Width>(
                p, tile, now, begin, items[mine].image, last && sink.wanted(),
                grad_output + (block.at + mine) * p.group_channels, input, sink, samples + mine * now,
                corners + mine * now);
          }
        }
        __syncthreads();
        if (mask_is_logits && pass == 0) {
          for (int i = threadIdx.x; i < block.count; i += blockDim.x) {
            for (int k = 0; k < now; ++k) {
              items[i].mean += samples[i * now + k].weight * samples[i * now + k].by_weight;
            }
          }
          __syncthreads();
        }
        if (!last || grad_offset == nullptr) {
          continue;
        }
        for (int s = threadIdx.x; s < block.count * now; s += blockDim.x) {
          const int64_t at = (block.at + s / now) * points + from + s % now;
          const Staged<T>& sample = samples[s];
          const T factor = sample.weight * scale;
          *reinterpret_cast<Vector<scalar_t, 2>*>(grad_offset + 2 * at) = {
              {static_cast<scalar_t>(factor * sample.by_x), static_cast<scalar_t>(factor * sample.by_y)}};
          const T centred = sample.by_weight - items[s / now].mean;
          grad_mask[at] = static_cast<scalar_t>(mask_is_logits ? sample.weight * centred : sample.by_weight);
        }
      }
    }
  });
}

}  // namespace dcnv3::cuda
