// DCNv3 on the CPU: the operators' bodies and their registration.
#include "../module.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "isa.h"
#include "tasks.h"

#define DCNV3_ISA baseline
#define DCNV3_VECTOR_BYTES 16
#define DCNV3_TARGET
#include "kernels.h"
#undef DCNV3_ISA
#undef DCNV3_VECTOR_BYTES
#undef DCNV3_TARGET

#if defined(__x86_64__)
#define DCNV3_ISA avx2
#define DCNV3_VECTOR_BYTES 32
#define DCNV3_TARGET __attribute__((target("avx2,fma")))
#include "kernels.h"
#undef DCNV3_ISA
#undef DCNV3_VECTOR_BYTES
#undef DCNV3_TARGET

#define DCNV3_ISA avx512
#define DCNV3_VECTOR_BYTES 64
#define DCNV3_TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#include "kernels.h"
#undef DCNV3_ISA
#undef DCNV3_VECTOR_BYTES
#undef DCNV3_TARGET
#endif

namespace dcnv3::cpu {
namespace {

template <typename Task>
void run(const Task& task, int64_t begin, int64_t end) {
  switch (current_isa()) {
#if defined(__x86_64__)
    case Isa::avx512:
      return avx512::run(task, begin, end);
    case Isa::avx2:
      return avx2::run(task, begin, end);
#endif
    default:
      return baseline::run(task, begin, end);
  }
}

// Multiply-adds, of the samples' values only, below which a second thread costs more than it saves.
constexpr int64_t kGrain = 32768;

// Tasks per thread, at least, where all of them together are `work` multiply-adds.
int64_t grain(int64_t tasks, int64_t work) { return std::max<int64_t>(1, kGrain * tasks / std::max<int64_t>(1, work)); }

int64_t work(const Params& p) { return p.batch * p.out_pixels() * p.channels() * p.points(); }

template <typename Task>
void parallel(int64_t tasks, int64_t grain, const Task& task) {
  // torch would replace the exception of a thread by one that says only that the loop failed.
  std::exception_ptr failure;
  std::mutex mutex;
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    try {
      run(task, begin, end);
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  });
  if (failure) {
    std::rethrow_exception(failure);
  }
}

Tensor forward(
    const Tensor& input_in, const Tensor& offset_in, const Tensor& mask_in, Ints kernel_size, Ints stride, Ints padding,
    Ints dilation, int64_t groups, double offset_scale, bool mask_is_logits) {
  const Params p =
      make_params(input_in, offset_in, mask_in, kernel_size, stride, padding, dilation, groups, offset_scale);
  const Inputs in(input_in, offset_in, mask_in);
  Tensor output = empty_output(p, in.input);
  dispatch(in.input.scalar_type(), [&](auto zero) {
    using scalar_t = decltype(zero);
    const Tensors<scalar_t> t{
        p, data<scalar_t>(in.input), data<scalar_t>(in.offset), data<scalar_t>(in.mask), mask_is_logits};
    const Pieces pieces(p);
    const int64_t tasks = p.batch * pieces.per_image;
    parallel(tasks, grain(tasks, work(p)), Forward<scalar_t>{t, pieces, mutable_data<scalar_t>(output)});
  });
  return output;
}

Gradients backward(
    const Tensor& grad_in, const Tensor& input_in, const Tensor& offset_in, const Tensor& mask_in, Ints kernel_size,
    Ints stride, Ints padding, Ints dilation, int64_t groups, double offset_scale, bool mask_is_logits,
    bool needs_input, bool needs_sampling, bool /* deterministic, always */) {
  const Params p =
      make_params(input_in, offset_in, mask_in, kernel_size, stride, padding, dilation, groups, offset_scale);
  check_grad_output(grad_in, input_in, p);
  const Tensor grad_output = contiguous_grad_output(grad_in);
  const Inputs in(input_in, offset_in, mask_in);

  BackwardResult result(in.input, in.offset, in.mask, needs_input, needs_sampling);
  dispatch(in.input.scalar_type(), [&](auto zero) {
    using scalar_t = decltype(zero);
    const Tensors<scalar_t> t{
        p, data<scalar_t>(in.input), data<scalar_t>(in.offset), data<scalar_t>(in.mask), mask_is_logits};
    const Pieces pieces(p);
    const int64_t tasks = p.batch * pieces.per_image, pixels = p.batch * p.y.size * p.x.size;
    // Each band costs another look at the pieces that reach over its ends, so there are as few as keep the threads
    // busy.
    const int64_t least = std::max(grain(pixels, work(p)), (pixels + tasks - 1) / std::max<int64_t>(1, tasks));
    const int64_t bands = std::min<int64_t>(torch::stable::get_num_threads(), (pixels + least - 1) / least);
    std::unique_ptr<PixelRange[]> reach;
    if (needs_input && bands > 0 && p.batch % bands != 0) {
      reach = allocate<PixelRange>("the pixels that each row reaches", tasks);
      parallel(tasks, grain(tasks, work(p)), Reach<scalar_t>{t, pieces, reach.get()});
    }
    parallel(
        pixels, least,
        Backward<scalar_t>{
            t, pieces, reach.get(), data<scalar_t>(grad_output), result.template grad_input<acc_t<scalar_t>>(),
            result.template grad_offset<scalar_t>(), result.template grad_mask<scalar_t>()});
  });
  return result.finish();
}

}  // namespace
}  // namespace dcnv3::cpu

STABLE_TORCH_LIBRARY_IMPL(dcnv3, CPU, m) {
  m.impl("forward", TORCH_BOX(&dcnv3::cpu::forward));
  m.impl("backward", TORCH_BOX(&dcnv3::cpu::backward));
}

PyMODINIT_FUNC PyInit__cpu() {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_cpu", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  try {
    return dcnv3::make_module(
        &definition, {{"source_hash", DCNV3_SOURCE_HASH},
                      {"isas", dcnv3::cpu::kIsas},
                      {"isa", dcnv3::cpu::name(dcnv3::cpu::current_isa())}});
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ImportError, error.what());
    return nullptr;
  }
}
