// DCNv3 on CUDA devices: launches of the kernels, the operators' bodies and their registration.
#include "../module.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "../operator.h"
#include "kernels.cuh"

namespace dcnv3::cuda {
namespace {

constexpr int64_t kMaxBlocks = int64_t(1) << 20;  // the kernels stride over the rest

unsigned blocks_for(int64_t work, int64_t per_block) {
  return static_cast<unsigned>(std::min((work + per_block - 1) / per_block, kMaxBlocks));
}

// Channels that a thread takes at once: those of 16 bytes, where groups and addresses are multiples of that.
template <typename scalar_t>
bool takes_16_bytes(const Params& p, const Tensor& input, const Tensor& other) {
  const auto aligned = [](const Tensor& t) { return reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0; };
  return p.group_channels % (16 / sizeof(scalar_t)) == 0 && aligned(input) && aligned(other);
}

// A grid of blocks of items and of images.
dim3 grid_for(const Params& p, const Tile& tile) {
  const int64_t items = p.out_pixels() * p.groups;
  STD_TORCH_CHECK(
      items <= UINT32_MAX, "dcnv3: ", p.out_pixels(), " output pixels of ", p.groups, " groups are too many");
  return {blocks_for(items, tile.items), static_cast<unsigned>(std::min<int64_t>(p.batch, 65535))};
}

cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// Raises what the launch before it reported.
void check_launch(const char* name) {
  const cudaError_t status = cudaGetLastError();
  STD_TORCH_CHECK(status == cudaSuccess, "dcnv3: launch of the ", name, " kernel failed: ", cudaGetErrorString(status));
}

// Calls f(zero of the C++ type, channels per thread as a constant).
template <typename F>
void dispatch_width(const Params& p, const Tensor& input, const Tensor& other, const F& f) {
  dispatch(input.scalar_type(), [&](auto zero) {
    using scalar_t = decltype(zero);
    if (takes_16_bytes<scalar_t>(p, input, other)) {
      f(zero, std::integral_constant<int, 16 / sizeof(scalar_t)>{});
    } else {
      f(zero, std::integral_constant<int, 1>{});
    }
  });
}

Tensor forward(
    const Tensor& input_in, const Tensor& offset_in, const Tensor& mask_in, Ints kernel_size, Ints stride, Ints padding,
    Ints dilation, int64_t groups, double offset_scale, bool mask_is_logits) {
  const Params p =
      make_params(input_in, offset_in, mask_in, kernel_size, stride, padding, dilation, groups, offset_scale);
  const int32_t device = input_in.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Inputs in(input_in, offset_in, mask_in);
  Tensor output = empty_output(p, in.input);
  if (p.batch == 0) {
    return output;
  }
  const cudaStream_t stream = current_stream(device);
  dispatch_width(p, in.input, output, [&](auto zero, auto width) {
    using scalar_t = decltype(zero);
    constexpr int Width = decltype(width)::value;
    const Tile tile = choose_tile(p, Width, kMaxItems, kForwardSamples);
    forward_kernel<scalar_t, acc_t<scalar_t>, Width><<<grid_for(p, tile), tile.lanes * tile.items, 0, stream>>>(
        p, tile, mask_is_logits, data<scalar_t>(in.input), data<scalar_t>(in.offset), data<scalar_t>(in.mask),
        mutable_data<scalar_t>(output));
    check_launch("forward");
  });
  return output;
}

// The gradient of the input in fixed point, while it is computed.
class FixedPoint {
 public:
  FixedPoint(const Params& p, const Tensor& grad_output, const Tensor& mask, bool mask_is_logits, cudaStream_t stream)
      : stream_(stream),
        sums_(Allocator("the gradient of input in fixed point", grad_output)
                  .zeros({p.batch, p.y.size, p.x.size, p.channels()}, ScalarType::Long)),
        per_unit_(Allocator("the unit of the fixed point", grad_output).empty({1}, ScalarType::Double)) {
    Tensor magnitudes = Allocator("the largest magnitudes", grad_output).zeros({2}, ScalarType::Int);
    unsigned* const largest = static_cast<unsigned*>(magnitudes.mutable_data_ptr());
    dispatch(grad_output.scalar_type(), [&](auto zero) {
      using scalar_t = decltype(zero);
      const auto find = [&](const Tensor& numbers, unsigned* result) {
        magnitude_kernel<<<blocks_for(numbers.numel(), 16 * kMaxThreads), kMaxThreads, 0, stream_>>>(
            numbers.numel(), data<scalar_t>(numbers), result);
        check_launch("magnitude");
      };
      find(grad_output, largest);
      find(mask, largest + 1);
    });
    unit_kernel<<<1, 1, 0, stream_>>>(
        largest, mask_is_logits, double(p.out_pixels()) * double(p.points()), mutable_data<double>(per_unit_));
    check_launch("unit");
  }

  FixedSink sink() const { return {mutable_data<unsigned long long>(sums_), mutable_data<double>(per_unit_)}; }

  template <typename T>
  void write(T* result) const {
    const int64_t count = sums_.numel();
    from_fixed_kernel<<<blocks_for(count, 4 * kMaxThreads), kMaxThreads, 0, stream_>>>(
        count, data<long long>(sums_), data<double>(per_unit_), result);
    check_launch("conversion");
  }

 private:
  cudaStream_t stream_;
  Tensor sums_, per_unit_;
};

Gradients backward(
    const Tensor& grad_in, const Tensor& input_in, const Tensor& offset_in, const Tensor& mask_in, Ints kernel_size,
    Ints stride, Ints padding, Ints dilation, int64_t groups, double offset_scale, bool mask_is_logits,
    bool needs_input, bool needs_sampling, bool deterministic) {
  const Params p =
      make_params(input_in, offset_in, mask_in, kernel_size, stride, padding, dilation, groups, offset_scale);
  check_grad_output(grad_in, input_in, p);
  const int32_t device = input_in.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Tensor grad_output = contiguous_grad_output(grad_in);
  const Inputs in(input_in, offset_in, mask_in);
  BackwardResult result(in.input, in.offset, in.mask, needs_input, needs_sampling);
  if (p.batch == 0) {
    return result.finish();
  }
  const cudaStream_t stream = current_stream(device);
  dispatch_width(p, in.input, grad_output, [&](auto zero, auto width) {
    using scalar_t = decltype(zero);
    using T = acc_t<scalar_t>;
    constexpr int Width = decltype(width)::value;
    const Tile tile = choose_tile(p, Width, kMaxItems / 2, kBackwardSamples);
    const auto launch = [&](const auto& sink) {
      backward_kernel<scalar_t, T, Width><<<grid_for(p, tile), tile.lanes * tile.items, 0, stream>>>(
          p, tile, mask_is_logits, data<scalar_t>(grad_output), data<scalar_t>(in.input), data<scalar_t>(in.offset),
          data<scalar_t>(in.mask), sink, result.template grad_offset<scalar_t>(),
          result.template grad_mask<scalar_t>());
      check_launch("backward");
    };
    if (deterministic && needs_input) {
      const FixedPoint fixed(p, grad_output, in.mask, mask_is_logits, stream);
      launch(fixed.sink());
      fixed.write(result.template grad_input<T>());
    } else {
      launch(FloatSink<T>{result.template grad_input<T>()});
    }
  });
  return result.finish();
}

}  // namespace
}  // namespace dcnv3::cuda

STABLE_TORCH_LIBRARY_IMPL(dcnv3, CUDA, m) {
  m.impl("forward", TORCH_BOX(&dcnv3::cuda::forward));
  m.impl("backward", TORCH_BOX(&dcnv3::cuda::backward));
}

PyMODINIT_FUNC PyInit__cuda() {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return dcnv3::make_module(&definition, {{"source_hash", DCNV3_SOURCE_HASH}, {"archs", DCNV3_CUDA_ARCHS}});
}
