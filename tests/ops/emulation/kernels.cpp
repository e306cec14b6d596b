// The CUDA kernels of DCNv3 as C functions that run them on the CPU.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cuda.h"
#ifdef EMULATED_ARCH
#define __CUDA_ARCH__ EMULATED_ARCH
#endif
#include "../../../ops_dcnv3/csrc/cuda/kernels.cuh"

using namespace dcnv3;
using namespace dcnv3::cuda;
using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// Calls f(zero of the dtype, zero of its accumulator, channels per thread).
template <typename F>
void dispatch(int dtype, bool wide, const F& f) {
  const auto with_width = [&](auto zero, auto sum) {
    if (wide) {
      f(zero, sum, std::integral_constant<int, 16 / sizeof(zero)>{});
    } else {
      f(zero, sum, std::integral_constant<int, 1>{});
    }
  };
  switch (dtype) {
    case 0:
      return with_width(double{}, double{});
    case 1:
      return with_width(float{}, float{});
    case 2:
      return with_width(BFloat16{}, float{});
    default:
      return with_width(Half{}, float{});
  }
}

// Of numbers in the order of Python's Geometry, between the sizes of input and output, the batch and the channels of a
// group: height, width, rows, columns, kernel (h, w), stride, padding, dilation, groups, batch, group channels.
Params make_params(const int64_t* n, double offset_scale) {
  const auto axis = [&](int i) {
    const auto at = [&](int pair) { return static_cast<int32_t>(n[2 * pair + i]); };
    Axis result{};
    result.size = at(0);
    result.out_size = at(1);
    result.kernel = at(2);
    result.stride = at(3);
    result.padding = at(4);
    result.dilation = at(5);
    return result;
  };
  Params p{};
  p.y = axis(0);
  p.x = axis(1);
  p.groups = n[12];
  p.batch = n[13];
  p.group_channels = n[14];
  p.offset_scale = offset_scale;
  return p;
}

extern "C" void forward(
    const int64_t* geometry, double offset_scale, int dtype, bool wide, unsigned grid_x, unsigned grid_y,
    bool mask_is_logits, const void* input, const void* offset, const void* mask, void* output) {
  const Params p = make_params(geometry, offset_scale);
  dispatch(dtype, wide, [&](auto zero, auto sum, auto width) {
    using scalar_t = decltype(zero);
    constexpr int Width = decltype(width)::value;
    const Tile tile = choose_tile(p, Width, kMaxItems, kForwardSamples);
    emulation::launch({grid_x, grid_y}, tile.lanes * tile.items, [&] {
      forward_kernel<scalar_t, decltype(sum), Width>(
          p, tile, mask_is_logits, static_cast<const scalar_t*>(input), static_cast<const scalar_t*>(offset),
          static_cast<const scalar_t*>(mask), static_cast<scalar_t*>(output));
    });
  });
}

// With `fixed`, zeroed numbers of 64 bits, the gradient of the input is collected there.
extern "C" void backward(
    const int64_t* geometry, double offset_scale, int dtype, bool wide, unsigned grid_x, unsigned grid_y,
    bool mask_is_logits, const void* grad_output, int64_t outputs, const void* input, int64_t inputs,
    const void* offset, const void* mask, int64_t masks, void* fixed, void* grad_input, void* grad_offset,
    void* grad_mask) {
  const Params p = make_params(geometry, offset_scale);
  dispatch(dtype, wide, [&](auto zero, auto sum, auto width) {
    using scalar_t = decltype(zero);
    using T = decltype(sum);
    constexpr int Width = decltype(width)::value;
    const auto numbers = [](const void* address) { return static_cast<const scalar_t*>(address); };
    const Tile tile = choose_tile(p, Width, kMaxItems / 2, kBackwardSamples);
    const auto launch = [&](const auto& sink) {
      emulation::launch({grid_x, grid_y}, tile.lanes * tile.items, [&] {
        backward_kernel<scalar_t, T, Width>(
            p, tile, mask_is_logits, numbers(grad_output), numbers(input), numbers(offset), numbers(mask), sink,
            static_cast<scalar_t*>(grad_offset), static_cast<scalar_t*>(grad_mask));
      });
    };
    if (fixed == nullptr) {
      return launch(FloatSink<T>{static_cast<T*>(grad_input)});
    }
    unsigned magnitudes[2] = {};
    double per_unit = 0;
    emulation::launch({2}, kMaxThreads, [&] { magnitude_kernel(outputs, numbers(grad_output), magnitudes); });
    emulation::launch({2}, kMaxThreads, [&] { magnitude_kernel(masks, numbers(mask), magnitudes + 1); });
    emulation::launch({1}, 1, [&] {
      unit_kernel(magnitudes, mask_is_logits, double(p.out_pixels()) * double(p.points()), &per_unit);
    });
    launch(FixedSink{static_cast<unsigned long long*>(fixed), &per_unit});
    emulation::launch({2}, kMaxThreads, [&] {
      from_fixed_kernel(inputs, static_cast<const long long*>(fixed), &per_unit, static_cast<T*>(grad_input));
    });
  });
}
