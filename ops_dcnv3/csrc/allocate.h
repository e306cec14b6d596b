// Allocation that says, where it fails, what it was for and how much was asked for. Through the stable ABI an exception
// of torch arrives as the name of the function that failed, and out of a parallel loop as that of the loop.
#pragma once

#include <cstdint>
#include <iomanip>
#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

// torch's text for its last exception, which starts with "CUDA out of memory" where programs look for that. The
// function is part of the stable ABI since torch 2.13; null before.
extern "C" __attribute__((weak)) const char* torch_exception_get_what_without_backtrace();

namespace dcnv3 {

[[noreturn]] inline void raise_out_of_memory(const char* name, double bytes, const char* cause = "out of memory") {
  std::ostringstream text;
  text << "dcnv3: cannot allocate " << std::fixed << std::setprecision(0) << bytes << " bytes for " << name << ": "
       << cause;
  throw std::runtime_error(text.str());
}

// An array of zeros.
template <typename T>
std::unique_ptr<T[]> allocate(const char* name, int64_t count) {
  try {
    return std::make_unique<T[]>(count);
  } catch (const std::bad_alloc&) {
    raise_out_of_memory(name, static_cast<double>(count) * sizeof(T));
  }
}

// The functions of torch::stable that make a tensor. `like` tells where.
class Allocator {
 public:
  using Tensor = torch::stable::Tensor;
  using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;
  using ScalarType = torch::headeronly::ScalarType;

  Allocator(const char* name, const Tensor& like) : name_(name), like_(like) {}

  Tensor contiguous() const {
    return attempt(like_.sizes(), like_.scalar_type(), [&] { return torch::stable::contiguous(like_); });
  }
  Tensor empty(Sizes sizes, ScalarType dtype) const {
    return attempt(sizes, dtype, [&] { return torch::stable::new_empty(like_, sizes, dtype); });
  }
  Tensor empty(Sizes sizes) const { return empty(sizes, like_.scalar_type()); }
  Tensor zeros(Sizes sizes, ScalarType dtype) const {
    return attempt(sizes, dtype, [&] { return torch::stable::new_zeros(like_, sizes, dtype); });
  }
  Tensor to(ScalarType dtype) const {
    return attempt(like_.sizes(), dtype, [&] { return torch::stable::to(like_, dtype); });
  }

 private:
  template <typename F>
  Tensor attempt(Sizes sizes, ScalarType dtype, const F& make) const {
    try {
      return make();
    } catch (const std::exception&) {
      double bytes = aoti_torch_dtype_element_size(static_cast<int32_t>(dtype));
      for (const int64_t size : sizes) {
        bytes *= size;
      }
      // On a GPU the failure may be another one, such as that of a kernel before.
      const bool torch_tells = like_.is_cuda() && torch_exception_get_what_without_backtrace != nullptr;
      raise_out_of_memory(name_, bytes, torch_tells ? torch_exception_get_what_without_backtrace() : "out of memory");
    }
  }

  const char* name_;
  const Tensor& like_;
};

}  // namespace dcnv3
