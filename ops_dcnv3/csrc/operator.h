// What the CPU and the CUDA file need of torch, through its stable ABI only: argument checks, allocation, dispatch by
// dtype.
#pragma once

#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "allocate.h"
#include "dcnv3.h"

namespace dcnv3 {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Ints = std::vector<int64_t>;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

// 16-bit types accumulate in float.
template <typename scalar_t>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <typename scalar_t>
using acc_t = typename Accumulator<scalar_t>::type;

inline Axis make_axis(
    const char* name, int64_t size, const Ints& kernel, const Ints& stride, const Ints& padding, const Ints& dilation,
    int i) {
  constexpr int64_t limit = std::numeric_limits<int32_t>::max();
  for (const int64_t value : {size, kernel[i], stride[i], padding[i], dilation[i]}) {
    STD_TORCH_CHECK(value < limit / 4, "dcnv3: ", value, " is too large for the geometry of the ", name);
  }
  const int64_t room = size + 2 * padding[i] - (dilation[i] * (kernel[i] - 1) + 1);
  STD_TORCH_CHECK(
      size > 0 && room >= 0, "dcnv3: there are no ", name, " in the input or the output for an input of ", size,
      " and a kernel of ", kernel[i]);
  return Axis{static_cast<int32_t>(size),       static_cast<int32_t>(room / stride[i] + 1),
              static_cast<int32_t>(kernel[i]),  static_cast<int32_t>(stride[i]),
              static_cast<int32_t>(padding[i]), static_cast<int32_t>(dilation[i])};
}

inline void check_shape(const char* name, const Tensor& tensor, const Params& p, int64_t last) {
  STD_TORCH_CHECK(
      tensor.dim() == 4 && tensor.size(0) == p.batch && tensor.size(1) == p.y.out_size &&
          tensor.size(2) == p.x.out_size && tensor.size(3) == last,
      "dcnv3: ", name, " must have shape (", p.batch, ", ", p.y.out_size, ", ", p.x.out_size, ", ", last, ")");
}

// The Python wrapper has checked all this with better messages; here it guards direct calls of the operator against
// reading out of bounds.
inline Params make_params(
    const Tensor& input, const Tensor& offset, const Tensor& mask, const Ints& kernel, const Ints& stride,
    const Ints& padding, const Ints& dilation, int64_t groups, double offset_scale) {
  STD_TORCH_CHECK(input.dim() == 4, "dcnv3: input must be (N, H, W, C), got ", input.dim(), " dimensions");
  for (const Ints* pair : {&kernel, &stride, &padding, &dilation}) {
    STD_TORCH_CHECK(
        pair->size() == 2, "dcnv3: kernel_size, stride, padding and dilation must be pairs, got ", pair->size(),
        " numbers");
  }
  for (int i = 0; i < 2; ++i) {
    STD_TORCH_CHECK(
        kernel[i] > 0 && stride[i] > 0 && dilation[i] > 0 && padding[i] >= 0,
        "dcnv3: kernel_size, stride and dilation must be positive, padding not negative");
  }
  const auto channels = input.size(3);
  STD_TORCH_CHECK(
      groups > 0 && channels > 0 && channels % groups == 0,
      "dcnv3: channels must be a positive multiple of groups=", groups, ", got ", channels);
  Params p{
      make_axis("rows", input.size(1), kernel, stride, padding, dilation, 0),
      make_axis("columns", input.size(2), kernel, stride, padding, dilation, 1),
      input.size(0),
      groups,
      channels / groups,
      offset_scale};
  const int64_t limit = std::numeric_limits<int32_t>::max();
  STD_TORCH_CHECK(
      int64_t(p.y.size) * p.x.size < limit && channels < limit / p.x.size && p.points() < limit, "dcnv3: an image of ",
      p.y.size, "x", p.x.size, " with ", channels, " channels or a kernel of ", p.points(), " points is too large");
  check_shape("offset", offset, p, 2 * p.samples_per_pixel());
  check_shape("mask", mask, p, p.samples_per_pixel());
  for (const auto* other : {&offset, &mask}) {
    STD_TORCH_CHECK(
        other->scalar_type() == input.scalar_type() && other->is_cuda() == input.is_cuda() &&
            other->get_device_index() == input.get_device_index(),
        "dcnv3: input, offset and mask must have one dtype and be on one device");
  }
  return p;
}

inline void check_grad_output(const Tensor& grad_output, const Tensor& input, const Params& p) {
  check_shape("grad_output", grad_output, p, p.channels());
  STD_TORCH_CHECK(
      grad_output.scalar_type() == input.scalar_type() && grad_output.is_cuda() == input.is_cuda() &&
          grad_output.get_device_index() == input.get_device_index(),
      "dcnv3: grad_output must have the dtype and the device of input");
}

// The tensors of a call, contiguous.
struct Inputs {
  Tensor input, offset, mask;

  Inputs(const Tensor& input_in, const Tensor& offset_in, const Tensor& mask_in)
      : input(Allocator("a contiguous input", input_in).contiguous()),
        offset(Allocator("a contiguous offset", offset_in).contiguous()),
        mask(Allocator("a contiguous mask", mask_in).contiguous()) {}
};

inline Tensor contiguous_grad_output(const Tensor& grad_output) {
  return Allocator("a contiguous grad_output", grad_output).contiguous();
}

inline Tensor empty_output(const Params& p, const Tensor& input) {
  return Allocator("the output", input).empty({p.batch, p.y.out_size, p.x.out_size, p.channels()});
}

template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Calls f with a value of the C++ type that corresponds to the dtype.
template <typename F>
void dispatch(ScalarType dtype, const F& f) {
  switch (dtype) {
    case ScalarType::Double:
      return f(double{});
    case ScalarType::Float:
      return f(float{});
    case ScalarType::BFloat16:
      return f(BFloat16{});
    case ScalarType::Half:
      return f(Half{});
    default:
      STD_TORCH_CHECK(false, "dcnv3: input must be float64, float32, bfloat16 or float16");
  }
}

// The three gradients while they are computed. What is not needed is an empty tensor, and a null pointer for the
// kernels. The gradient of the input collects many contributions per element, so it is summed in the accumulator's
// type.
class BackwardResult {
 public:
  BackwardResult(const Tensor& input, const Tensor& offset, const Tensor& mask, bool needs_input, bool needs_sampling)
      : needs_input_(needs_input),
        needs_sampling_(needs_sampling),
        dtype_(input.scalar_type()),
        grad_input_(
            needs_input
                ? Allocator("the gradient of input", input)
                      .zeros(input.sizes(), dtype_ == ScalarType::Double ? ScalarType::Double : ScalarType::Float)
                : torch::stable::new_empty(input, {0})),
        grad_offset_(empty_or_none("the gradient of offset", offset, needs_sampling)),
        grad_mask_(empty_or_none("the gradient of mask", mask, needs_sampling)) {}

  template <typename T>
  T* grad_input() const {
    return needs_input_ ? mutable_data<T>(grad_input_) : nullptr;
  }
  template <typename T>
  T* grad_offset() const {
    return needs_sampling_ ? mutable_data<T>(grad_offset_) : nullptr;
  }
  template <typename T>
  T* grad_mask() const {
    return needs_sampling_ ? mutable_data<T>(grad_mask_) : nullptr;
  }

  Gradients finish() const {
    const bool same = grad_input_.scalar_type() == dtype_;
    return {same ? grad_input_ : Allocator("the gradient of input", grad_input_).to(dtype_), grad_offset_, grad_mask_};
  }

 private:
  static Tensor empty_or_none(const char* name, const Tensor& like, bool wanted) {
    return wanted ? Allocator(name, like).empty(like.sizes()) : torch::stable::new_empty(like, {0});
  }

  bool needs_input_, needs_sampling_;
  ScalarType dtype_;
  Tensor grad_input_, grad_offset_, grad_mask_;
};

}  // namespace dcnv3
