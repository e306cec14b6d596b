// DCNv3 on the CPU: the operators' bodies and their registration.
#include "../module.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
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

// Channels of output per thread below which a second thread costs more than it saves.
constexpr int64_t kGrain = 32768;

int64_t rows_per_thread(const Params& p) {
  const int64_t work = p.x.out_size * p.channels() * p.points();
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work));
}

template <typename Task>
void parallel(int64_t tasks, int64_t grain, const Task& task) {
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) { run(task, begin, end); });
}

Tensor forward(
    const Tensor& input_in, const Tensor& offset_in, const Tensor& mask_in, Ints kernel_size, Ints stride, Ints padding,
    Ints dilation, int64_t groups, double offset_scale, bool mask_is_logits) {
  const Params p =
      make_params(input_in, offset_in, mask_in, kernel_size, stride, padding, dilation, groups, offset_scale);
  const Tensor input = torch::stable::contiguous(input_in);
  const Tensor offset = torch::stable::contiguous(offset_in);
  const Tensor mask = torch::stable::contiguous(mask_in);
  Tensor output = torch::stable::new_empty(input, {p.batch, p.y.out_size, p.x.out_size, p.channels()});
  dispatch(input.scalar_type(), [&](auto zero) {
    using scalar_t = decltype(zero);
    const Tensors<scalar_t> t{p, data<scalar_t>(input), data<scalar_t>(offset), data<scalar_t>(mask), mask_is_logits};
    parallel(p.batch * p.y.out_size, rows_per_thread(p), Forward<scalar_t>{t, mutable_data<scalar_t>(output)});
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
  const Tensor grad_output = torch::stable::contiguous(grad_in);
  const Tensor input = torch::stable::contiguous(input_in);
  const Tensor offset = torch::stable::contiguous(offset_in);
  const Tensor mask = torch::stable::contiguous(mask_in);

  BackwardResult result(input, offset, mask, needs_input, needs_sampling);
  dispatch(input.scalar_type(), [&](auto zero) {
    using scalar_t = decltype(zero);
    const Tensors<scalar_t> t{p, data<scalar_t>(input), data<scalar_t>(offset), data<scalar_t>(mask), mask_is_logits};
    const scalar_t* grad = data<scalar_t>(grad_output);
    const auto extents = std::make_unique<RowExtent[]>(p.batch * p.y.out_size);
    const SamplingGradients<scalar_t> sampling{
        t, grad, result.template grad_offset<scalar_t>(), result.template grad_mask<scalar_t>(), extents.get()};
    parallel(p.batch * p.y.out_size, rows_per_thread(p), sampling);
    if (needs_input && p.batch > 0) {
      // As few bands as keep the threads busy: each costs another look at the output rows along its edges.
      const int64_t threads = torch::stable::get_num_threads();
      const int64_t bands = std::min<int64_t>((threads + p.batch - 1) / p.batch, p.y.size);
      parallel(
          p.batch * bands, 1,
          InputGradient<scalar_t>{t, grad, extents.get(), bands, result.template grad_input<acc_t<scalar_t>>()});
    }
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
