// The kernels for one instruction set, in a namespace of its own. No include guard: dcnv3_cpu.cpp includes this file
// once per set, with DCNV3_ISA (the namespace), DCNV3_VECTOR_BYTES (of a register) and DCNV3_TARGET (the attribute, or
// nothing) defined.
//
// Every function that touches a vector carries the attribute itself, through DCNV3_INLINE. To inline a portable
// function into one for AVX-512 would not do: the compiler splits its vectors before it inlines. And no function of one
// set can be mistaken for another's by the linker, as happens with files compiled under different flags.

#define DCNV3_INLINE inline __attribute__((always_inline)) DCNV3_TARGET
#define DCNV3_INLINE_LAMBDA __attribute__((always_inline)) DCNV3_TARGET

namespace dcnv3::cpu::DCNV3_ISA {

#include "../sample.h"
#include "pack.h"
#include "plan.h"

// Walks the pixels of one output row and, per pixel, the chunks of its groups: f(output pixel, first group, groups)
// with the plan made.
template <bool kGradients, typename scalar_t, typename F>
DCNV3_INLINE void for_each_chunk(const Tensors<scalar_t>& t, Plan<scalar_t>& plan, int64_t out_row, const F& f) {
  const Params& p = t.p;
  const int64_t row = out_row % p.y.out_size;
  const int64_t samples = p.samples_per_pixel();
  for (int64_t column = 0; column < p.x.out_size; ++column) {
    const int64_t pixel = out_row * p.x.out_size + column;
    for (int64_t group = 0; group < p.groups; group += plan.groups_per_chunk()) {
      const int64_t groups = std::min(plan.groups_per_chunk(), p.groups - group);
      const int64_t first = pixel * samples + group * p.points();
      plan.template make<kGradients>(row, column, groups, t.offset + 2 * first, t.mask + first);
      f(pixel, group, groups);
    }
  }
}

// Calls f(size of the pack, first sample of the group in the plan, channel) for packs that cover the channels of a
// chunk.
template <typename T, typename F>
DCNV3_INLINE void for_each_pack(const Params& p, int64_t group, int64_t groups, const F& f) {
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first_channel = (group + g) * p.group_channels;
    cover_with_packs<T>(p.group_channels, [&](auto size, int64_t channel) DCNV3_INLINE_LAMBDA {
      f(size, g * p.points(), first_channel + channel);
    });
  }
}

// The corners of a sample, as pointers to the first channel of a pack.
template <typename T, typename scalar_t>
struct Corners {
  T* at[4];

  DCNV3_INLINE Corners(const Plan<scalar_t>& plan, int64_t sample, T* image, int64_t channels) {
    const int64_t right = plan.right()[sample], down = plan.down()[sample];
    T* const corner = image + plan.pixel()[sample] * channels;
    at[0] = corner;
    at[1] = corner + right;
    at[2] = corner + down;
    at[3] = corner + down + right;
  }
};

template <int N, typename scalar_t>
DCNV3_INLINE void sample(
    const Params& p, const Plan<scalar_t>& plan, int64_t first, const scalar_t* image, scalar_t* output) {
  using T = acc_t<scalar_t>;
  Pack<T, N> sums[4] = {};  // one per corner, so that four additions are under way at a time
  for (int64_t i = first; i < first + p.points(); ++i) {
    if (!plan.inside()[i]) {
      continue;
    }
    const Corners<const scalar_t, scalar_t> corners(plan, i, image, p.channels());
    for (int k = 0; k < 4; ++k) {
      Pack<T, N> values;
      load<N, T>(values, corners.at[k]);
      sums[k] += plan.weight(k)[i] * values;
    }
  }
  const Pack<T, N> sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  store<N, T>(output, sum);
}

template <typename scalar_t>
DCNV3_TARGET void run(const Forward<scalar_t>& task, int64_t begin, int64_t end) {
  const Params& p = task.t.p;
  Plan<scalar_t> plan(p);
  for (int64_t out_row = begin; out_row < end; ++out_row) {
    const scalar_t* image = task.t.input + out_row / p.y.out_size * p.image_size();
    for_each_chunk<false>(task.t, plan, out_row, [&](int64_t pixel, int64_t group, int64_t groups) DCNV3_INLINE_LAMBDA {
      scalar_t* const output = task.output + pixel * p.channels();
      for_each_pack<acc_t<scalar_t>>(
          p, group, groups, [&](auto size, int64_t first, int64_t channel) DCNV3_INLINE_LAMBDA {
            sample<decltype(size)::value>(p, plan, first, image + channel, output + channel);
          });
    });
  }
}

// Sums of one sample: its gradients by the offset's x and y and by the mask, each still spread over a few lanes.
constexpr int kSumKinds = 3;
constexpr int kSums = kSumKinds * kPartialLanes;

template <int N, typename scalar_t>
DCNV3_INLINE void multiply(
    const Params& p, const Plan<scalar_t>& plan, int64_t first, const scalar_t* image, const scalar_t* grad_output,
    acc_t<scalar_t>* sums) {
  using T = acc_t<scalar_t>;
  Pack<T, N> grad;
  load<N, T>(grad, grad_output);
  for (int64_t i = first; i < first + p.points(); ++i) {
    if (!plan.inside()[i]) {
      continue;
    }
    const Corners<const scalar_t, scalar_t> corners(plan, i, image, p.channels());
    Pack<T, N> values[4];
    for (int k = 0; k < 4; ++k) {
      load<N, T>(values[k], corners.at[k]);
    }
    for (int which = 0; which < kSumKinds; ++which) {
      Pack<T, N> sum{};
      for (int k = 0; k < 4; ++k) {
        sum += plan.gradient_weight(which, k)[i] * values[k];
      }
      sum *= grad;
      add_folded<N, T>(sums + i * kSums + which * kPartialLanes, sum);
    }
  }
}

template <typename scalar_t>
DCNV3_INLINE void finish(int64_t count, const acc_t<scalar_t>* sums, scalar_t* grad_offset, scalar_t* grad_mask) {
  const auto total = [](const acc_t<scalar_t>* lanes) DCNV3_INLINE_LAMBDA {
    return static_cast<scalar_t>((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
  };
  for (int64_t i = 0; i < count; ++i, sums += kSums) {
    grad_offset[2 * i] = total(sums);
    grad_offset[2 * i + 1] = total(sums + kPartialLanes);
    grad_mask[i] = total(sums + 2 * kPartialLanes);
  }
}

template <typename scalar_t>
DCNV3_TARGET void run(const SamplingGradients<scalar_t>& task, int64_t begin, int64_t end) {
  using T = acc_t<scalar_t>;
  const Params& p = task.t.p;
  Plan<scalar_t> plan(p);
  const auto sums = std::make_unique<T[]>(plan.capacity() * kSums);
  for (int64_t out_row = begin; out_row < end; ++out_row) {
    const scalar_t* image = task.t.input + out_row / p.y.out_size * p.image_size();
    RowExtent extent;
    for_each_chunk<true>(task.t, plan, out_row, [&](int64_t pixel, int64_t group, int64_t groups) DCNV3_INLINE_LAMBDA {
      const int64_t count = groups * p.points();
      for (int64_t i = 0; i < count; ++i) {
        if (plan.inside()[i]) {
          extent.low = std::min(extent.low, plan.low_row()[i]);
          extent.high = std::max(extent.high, plan.high_row()[i]);
        }
      }
      if (task.grad_offset == nullptr) {
        return;
      }
      std::fill_n(sums.get(), count * kSums, T(0));
      const scalar_t* grad_output = task.grad_output + pixel * p.channels();
      for_each_pack<acc_t<scalar_t>>(
          p, group, groups, [&](auto size, int64_t first, int64_t channel) DCNV3_INLINE_LAMBDA {
            multiply<decltype(size)::value>(p, plan, first, image + channel, grad_output + channel, sums.get());
          });
      const int64_t first = pixel * p.samples_per_pixel() + group * p.points();
      finish(count, sums.get(), task.grad_offset + 2 * first, task.grad_mask + first);
    });
    task.extents[out_row] = extent;
  }
}

template <int N, typename T>
DCNV3_INLINE void add(T* destination, T weight, const Pack<T, N>& grad) {
  Pack<T, N> sum;
  load<N, T>(sum, destination);
  sum += weight * grad;
  std::memcpy(destination, &sum, sizeof(sum));
}

struct Band {
  int64_t begin, end;  // rows of the input

  bool holds(int64_t row) const { return begin <= row && row < end; }
};

template <int N, typename scalar_t>
DCNV3_INLINE void scatter(
    const Params& p, const Plan<scalar_t>& plan, int64_t first, Band band, const scalar_t* grad_output,
    acc_t<scalar_t>* grad_image) {
  using T = acc_t<scalar_t>;
  Pack<T, N> grad;
  load<N, T>(grad, grad_output);
  for (int64_t i = first; i < first + p.points(); ++i) {
    if (!plan.inside()[i]) {
      continue;
    }
    const Corners<T, scalar_t> corners(plan, i, grad_image, p.channels());
    if (band.holds(plan.low_row()[i])) {
      add<N, T>(corners.at[0], plan.weight(0)[i], grad);
      add<N, T>(corners.at[1], plan.weight(1)[i], grad);
    }
    if (band.holds(plan.high_row()[i])) {
      add<N, T>(corners.at[2], plan.weight(2)[i], grad);
      add<N, T>(corners.at[3], plan.weight(3)[i], grad);
    }
  }
}

template <typename scalar_t>
DCNV3_TARGET void run(const InputGradient<scalar_t>& task, int64_t begin, int64_t end) {
  const Params& p = task.t.p;
  Plan<scalar_t> plan(p);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t image = index / task.bands, band_index = index % task.bands;
    const Band band{p.y.size * band_index / task.bands, p.y.size * (band_index + 1) / task.bands};
    acc_t<scalar_t>* const grad_image = task.grad_input + image * p.image_size();
    for (int64_t out_row = image * p.y.out_size; out_row < (image + 1) * p.y.out_size; ++out_row) {
      const RowExtent& extent = task.extents[out_row];
      if (extent.high < band.begin || extent.low >= band.end) {
        continue;
      }
      for_each_chunk<false>(
          task.t, plan, out_row, [&](int64_t pixel, int64_t group, int64_t groups) DCNV3_INLINE_LAMBDA {
            const scalar_t* grad_output = task.grad_output + pixel * p.channels();
            for_each_pack<acc_t<scalar_t>>(
                p, group, groups, [&](auto size, int64_t first, int64_t channel) DCNV3_INLINE_LAMBDA {
                  scatter<decltype(size)::value>(p, plan, first, band, grad_output + channel, grad_image + channel);
                });
          });
    }
  }
}

}  // namespace dcnv3::cpu::DCNV3_ISA

#undef DCNV3_INLINE
#undef DCNV3_INLINE_LAMBDA
