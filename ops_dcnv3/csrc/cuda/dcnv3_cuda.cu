// DCNv3 on CUDA devices: kernels, the operators' bodies and their registration. Written for correctness: any shape,
// 64-bit indices, every launch checked.
#include "../module.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "../operator.h"

#define DCNV3_INLINE __device__ __forceinline__

namespace dcnv3::cuda {

#include "../sample.h"

namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = int64_t(1) << 20;  // the kernels stride over the rest

// A team of Lanes neighbouring threads of one warp serves one group of one output pixel; its lanes take the group's
// channels in turn. Lanes is a power of two, so that no team straddles warps whatever the number of channels.
template <int Lanes>
struct Team {
  int64_t index = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / Lanes;
  int64_t stride = int64_t(gridDim.x) * (kThreads / Lanes);
  int lane = threadIdx.x % Lanes;

  // Lanes of the warp that belong to this team: other teams of the warp may have left the loop.
  __device__ unsigned mask() const {
    const unsigned ones = Lanes == 32 ? ~0u : (1u << (Lanes % 32)) - 1;
    return ones << (threadIdx.x % 32 / Lanes * Lanes);
  }

  template <typename T>
  __device__ T sum(T value) const {
    for (int distance = Lanes / 2; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(mask(), value, distance, Lanes);
    }
    return value;
  }
};

// Place of a team's work: the output pixel and group of its index.
struct Place {
  int64_t image, row, column, group, pixel;

  __device__ Place(const Params& p, int64_t index) {
    group = index % p.groups;
    pixel = index / p.groups;
    column = pixel % p.x.out_size;
    row = pixel / p.x.out_size % p.y.out_size;
    image = pixel / p.out_pixels();
  }
};

// One sample of a group: the weights of its corners and their addresses, relative to the image.
template <typename T>
struct Sample {
  CornerWeights<T> weights;
  int64_t corner[4];
  bool inside;

  template <typename scalar_t>
  __device__ Sample(const Params& p, const Place& place, int64_t point, const scalar_t* offset) {
    const auto along = [&](const Axis& axis, int64_t out, int64_t tap, scalar_t shift) {
      const T scale = static_cast<T>(p.offset_scale);
      const T centre = static_cast<T>(axis.centre(out));
      return neighbours<T>(sample_position(centre, static_cast<T>(tap), static_cast<T>(shift), scale), axis.size);
    };
    const auto y = along(p.y, place.row, p.tap_y(point), offset[2 * point + 1]);
    const auto x = along(p.x, place.column, p.tap_x(point), offset[2 * point]);
    weights = corner_weights(y, x);
    inside = y.inside * x.inside != T(0);
    const int64_t low = int64_t(y.low) * p.x.size, high = int64_t(y.high) * p.x.size;
    corner[0] = (low + x.low) * p.channels();
    corner[1] = (low + x.high) * p.channels();
    corner[2] = (high + x.low) * p.channels();
    corner[3] = (high + x.high) * p.channels();
  }
};

template <typename T>
__device__ T dot(const T a[4], const T b[4]) {
  return (a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3]);
}

template <int Lanes, typename scalar_t>
__global__ void __launch_bounds__(kThreads) forward_kernel(
    Params p, const scalar_t* __restrict__ input, const scalar_t* __restrict__ offset,
    const scalar_t* __restrict__ mask, scalar_t* __restrict__ output) {
  using T = acc_t<scalar_t>;
  const Team<Lanes> team;
  const int64_t teams = p.batch * p.out_pixels() * p.groups;
  for (int64_t index = team.index; index < teams; index += team.stride) {
    const Place place(p, index);
    const scalar_t* const image = input + place.image * p.image_size() + place.group * p.group_channels;
    const scalar_t* const offsets = offset + index * p.points() * 2;
    const scalar_t* const masks = mask + index * p.points();
    for (int64_t channel = team.lane; channel < p.group_channels; channel += Lanes) {
      T sum = 0;
      for (int64_t point = 0; point < p.points(); ++point) {
        const Sample<T> sample(p, place, point, offsets);
        if (!sample.inside) {
          continue;
        }
        T value = 0;
        for (int k = 0; k < 4; ++k) {
          value += sample.weights.value[k] * static_cast<T>(image[sample.corner[k] + channel]);
        }
        sum += value * static_cast<T>(masks[point]);
      }
      output[index * p.group_channels + channel] = static_cast<scalar_t>(sum);
    }
  }
}

// grad_input collects atomically, so the order of its sums, and their last bits, vary from run to run. Null pointers
// are gradients that nobody wants.
template <int Lanes, typename scalar_t>
__global__ void __launch_bounds__(kThreads) backward_kernel(
    Params p, const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const scalar_t* __restrict__ offset, const scalar_t* __restrict__ mask, acc_t<scalar_t>* __restrict__ grad_input,
    scalar_t* __restrict__ grad_offset, scalar_t* __restrict__ grad_mask) {
  using T = acc_t<scalar_t>;
  const T scale = static_cast<T>(p.offset_scale);
  const Team<Lanes> team;
  const int64_t teams = p.batch * p.out_pixels() * p.groups;
  for (int64_t index = team.index; index < teams; index += team.stride) {
    const Place place(p, index);
    const int64_t image = place.image * p.image_size() + place.group * p.group_channels;
    for (int64_t point = 0; point < p.points(); ++point) {
      const int64_t at = index * p.points() + point;
      const Sample<T> sample(p, place, point, offset + index * p.points() * 2);
      const T modulation = static_cast<T>(mask[at]);
      T products[4] = {};
      if (sample.inside) {
        for (int64_t channel = team.lane; channel < p.group_channels; channel += Lanes) {
          const T grad = static_cast<T>(grad_output[index * p.group_channels + channel]);
          for (int k = 0; k < 4; ++k) {
            const int64_t corner = image + sample.corner[k] + channel;
            const T weight = sample.weights.value[k];
            products[k] += grad * static_cast<T>(input[corner]);
            if (grad_input != nullptr && weight != T(0)) {
              atomicAdd(grad_input + corner, weight * modulation * grad);
            }
          }
        }
      }
      if (grad_offset == nullptr) {
        continue;
      }
      for (int k = 0; k < 4; ++k) {
        products[k] = team.sum(products[k]);
      }
      if (team.lane == 0) {
        grad_offset[2 * at] = static_cast<scalar_t>(modulation * scale * dot(sample.weights.by_x, products));
        grad_offset[2 * at + 1] = static_cast<scalar_t>(modulation * scale * dot(sample.weights.by_y, products));
        grad_mask[at] = static_cast<scalar_t>(dot(sample.weights.value, products));
      }
    }
  }
}

// Calls f(std::integral_constant<int, Lanes>) with the smallest team that gives each channel a lane, at most a warp.
template <typename F>
void dispatch_lanes(int64_t group_channels, const F& f) {
  if (group_channels <= 1) return f(std::integral_constant<int, 1>{});
  if (group_channels <= 2) return f(std::integral_constant<int, 2>{});
  if (group_channels <= 4) return f(std::integral_constant<int, 4>{});
  if (group_channels <= 8) return f(std::integral_constant<int, 8>{});
  if (group_channels <= 16) return f(std::integral_constant<int, 16>{});
  return f(std::integral_constant<int, 32>{});
}

// Calls launch(blocks, stream) on the current stream of the tensors' device, and raises what the launch reports.
template <typename Launch>
void launch_teams(const Params& p, int lanes, int32_t device, const char* name, const Launch& launch) {
  const int64_t teams = p.batch * p.out_pixels() * p.groups;
  if (teams == 0) {
    return;
  }
  const int64_t per_block = kThreads / lanes;
  const auto blocks = static_cast<unsigned>(std::min((teams + per_block - 1) / per_block, kMaxBlocks));
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  launch(blocks, static_cast<cudaStream_t>(stream));
  const cudaError_t status = cudaGetLastError();
  STD_TORCH_CHECK(
      status == cudaSuccess, "dcnv3: launch of the ", name, " kernel failed: ", cudaGetErrorString(status), " (",
      blocks, " blocks of ", kThreads, " threads)");
}

Tensor forward(
    const Tensor& input_in, const Tensor& offset_in, const Tensor& mask_in, Ints kernel_size, Ints stride, Ints padding,
    Ints dilation, int64_t groups, double offset_scale) {
  const Params p =
      make_params(input_in, offset_in, mask_in, kernel_size, stride, padding, dilation, groups, offset_scale);
  const int32_t device = input_in.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Tensor input = torch::stable::contiguous(input_in);
  const Tensor offset = torch::stable::contiguous(offset_in);
  const Tensor mask = torch::stable::contiguous(mask_in);
  Tensor output = torch::stable::new_empty(input, {p.batch, p.y.out_size, p.x.out_size, p.channels()});
  dispatch(input.scalar_type(), [&](auto zero) {
    using scalar_t = decltype(zero);
    dispatch_lanes(p.group_channels, [&](auto lanes) {
      constexpr int Lanes = decltype(lanes)::value;
      launch_teams(p, Lanes, device, "forward", [&](unsigned blocks, cudaStream_t stream) {
        forward_kernel<Lanes><<<blocks, kThreads, 0, stream>>>(
            p, data<scalar_t>(input), data<scalar_t>(offset), data<scalar_t>(mask), mutable_data<scalar_t>(output));
      });
    });
  });
  return output;
}

Gradients backward(
    const Tensor& grad_in, const Tensor& input_in, const Tensor& offset_in, const Tensor& mask_in, Ints kernel_size,
    Ints stride, Ints padding, Ints dilation, int64_t groups, double offset_scale, bool needs_input,
    bool needs_sampling) {
  const Params p =
      make_params(input_in, offset_in, mask_in, kernel_size, stride, padding, dilation, groups, offset_scale);
  check_grad_output(grad_in, input_in, p);
  const int32_t device = input_in.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Tensor grad_output = torch::stable::contiguous(grad_in);
  const Tensor input = torch::stable::contiguous(input_in);
  const Tensor offset = torch::stable::contiguous(offset_in);
  const Tensor mask = torch::stable::contiguous(mask_in);
  BackwardResult result(input, offset, mask, needs_input, needs_sampling);
  dispatch(input.scalar_type(), [&](auto zero) {
    using scalar_t = decltype(zero);
    dispatch_lanes(p.group_channels, [&](auto lanes) {
      constexpr int Lanes = decltype(lanes)::value;
      launch_teams(p, Lanes, device, "backward", [&](unsigned blocks, cudaStream_t stream) {
        backward_kernel<Lanes><<<blocks, kThreads, 0, stream>>>(
            p, data<scalar_t>(grad_output), data<scalar_t>(input), data<scalar_t>(offset), data<scalar_t>(mask),
            result.template grad_input<acc_t<scalar_t>>(), result.template grad_offset<scalar_t>(),
            result.template grad_mask<scalar_t>());
      });
    });
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
