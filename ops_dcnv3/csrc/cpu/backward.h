// The backward. Included once per instruction set, see kernels.h.

// Products of the output's gradient with the four corners of each sample, summed over the channels but for
// kPartialLanes lanes. kFirst: these are the first channels; otherwise adds to what is there.
template <typename Tile, bool kFirst, typename scalar_t>
DCNV3_NOINLINE void multiply_samples(
    Walk walk, Samples<acc_t<scalar_t>> samples, const scalar_t* image, const scalar_t* grad_output,
    acc_t<scalar_t>* products) {
  using T = acc_t<scalar_t>;
  using Values = Pack<T, Tile::lanes>;
  int64_t i = 0;
  grad_output += walk.out_channel;
  for (int64_t unit = 0, group = 0; unit < walk.pixels * walk.groups; ++unit) {
    const scalar_t* const source = image + walk.in_channel + group * walk.group_channels;
    Values grads[Tile::registers];
    for (int r = 0; r < Tile::registers; ++r) {
      load<Tile::lanes, T>(grads[r], grad_output + r * Tile::lanes);
    }
    for (const int64_t end = i + walk.points; i < end; ++i) {
      T* const partial = products + 4 * kPartialLanes * i;
      if (samples.pixel[i] < 0) {
        if (kFirst) {
          std::memset(partial, 0, 4 * kPartialLanes * sizeof(T));
        }
        continue;
      }
      const Corners corners(samples, i, source);
      Values sums[4] = {};
      for (int k = 0; k < 4; ++k) {
        for (int r = 0; r < Tile::registers; ++r) {
          Values values;
          load<Tile::lanes, T>(values, corners.at[k] + r * Tile::lanes);
          sums[k] += grads[r] * values;
        }
      }
      add_folded<Tile::lanes, kFirst, T>(partial, sums);
    }
    grad_output += walk.group_channels;
    group = group + 1 < walk.groups ? group + 1 : 0;
  }
}

// The products of one vector of samples with each corner, from their partial sums.
template <typename T>
DCNV3_INLINE void add_partial(const T* partial, Pack<T, kLanes<T>> products[4]) {
  constexpr int L = kLanes<T>;
  Pack<T, L> mixed[4];  // the four products of a sample side by side
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k, partial += 4 * L) {
    Pack<T, L> parts[4];
    load<L, T>(parts[0], partial);
    load<L, T>(parts[1], partial + L);
    load<L, T>(parts[2], partial + 2 * L);
    load<L, T>(parts[3], partial + 3 * L);
    mixed[k] = add_neighbours<L, 1>(add_neighbours<L, 1>(parts[0], parts[1]), add_neighbours<L, 1>(parts[2], parts[3]));
  }
  const Pack<T, L> even[2] = {evens<L, 1>(mixed[0], mixed[1]), evens<L, 1>(mixed[2], mixed[3])};
  const Pack<T, L> odd[2] = {odds<L, 1>(mixed[0], mixed[1]), odds<L, 1>(mixed[2], mixed[3])};
  products[0] = evens<L, 1>(even[0], even[1]);
  products[1] = evens<L, 1>(odd[0], odd[1]);
  products[2] = odds<L, 1>(even[0], even[1]);
  products[3] = odds<L, 1>(odd[0], odd[1]);
}

// What a chunk's gradients of offset and mask are made in.
template <typename scalar_t>
struct SamplingBuffers {
  using T = acc_t<scalar_t>;
  static constexpr const char* kName = "the gradients of a thread's samples";
  std::unique_ptr<T[]> products, by_x, by_y, by_mask;

  explicit SamplingBuffers(int64_t capacity)
      : products(allocate<T>(kName, 4 * kPartialLanes * capacity)),
        by_x(allocate<T>(kName, capacity)),
        by_y(allocate<T>(kName, capacity)),
        by_mask(allocate<T>(kName, capacity)) {}
};

// Turns the products of a chunk into gradients, which begin at the given addresses.
template <typename scalar_t>
DCNV3_INLINE void finish(
    const Tensors<scalar_t>& t, const Plan<scalar_t>& plan, const SamplingBuffers<scalar_t>& buffers, int64_t units,
    scalar_t* grad_offset, scalar_t* grad_mask) {
  using T = acc_t<scalar_t>;
  using Reals = Pack<T, kLanes<T>>;
  const int64_t count = units * t.p.points();
  const T* const products = buffers.products.get();
  T *const by_x = buffers.by_x.get(), *const by_y = buffers.by_y.get(), *const by_mask = buffers.by_mask.get();
  const auto dot = [](const Reals a[4], const Reals b[4], Reals& result)
                       DCNV3_INLINE_LAMBDA { result = (a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3]); };
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    typename Plan<scalar_t>::Sides y, x;
    plan.sides(i, y, x);
    const auto weights = corner_weights(y, x);
    Reals product[4], mask, grad;
    add_partial<T>(products + 4 * kPartialLanes * i, product);
    std::memcpy(&mask, plan.mask() + i, sizeof(mask));
    mask *= static_cast<T>(t.p.offset_scale);
    dot(weights.by_x, product, grad);
    grad *= mask;
    std::memcpy(by_x + i, &grad, sizeof(grad));
    dot(weights.by_y, product, grad);
    grad *= mask;
    std::memcpy(by_y + i, &grad, sizeof(grad));
    dot(weights.value, product, grad);
    std::memcpy(by_mask + i, &grad, sizeof(grad));
  }
  if (t.mask_is_logits) {
    softmax_backward(units, t.p.points(), plan.mask(), by_mask);
  }
  for (int64_t i = 0; i < count; ++i) {
    grad_offset[2 * i] = static_cast<scalar_t>(by_x[i]);
    grad_offset[2 * i + 1] = static_cast<scalar_t>(by_y[i]);
    grad_mask[i] = static_cast<scalar_t>(by_mask[i]);
  }
}

// Adds to the pixels of the band. kWhole: the band is known to hold all corners.
template <typename Tile, bool kWhole, typename scalar_t>
DCNV3_NOINLINE void scatter_samples(
    Walk walk, Samples<acc_t<scalar_t>> samples, PixelRange band, const scalar_t* grad_output,
    acc_t<scalar_t>* grad_image) {
  using T = acc_t<scalar_t>;
  using Values = Pack<T, Tile::lanes>;
  grad_output += walk.out_channel;
  for (int64_t pixel = 0; pixel < walk.pixels; ++pixel) {
    // Neighbouring points add to the same pixels, each after the other's store. Groups share none, so that their sums
    // proceed side by side.
    for (int64_t point = 0; point < walk.points; ++point) {
      for (int64_t group = 0; group < walk.groups; ++group) {
        const int64_t i = (pixel * walk.groups + group) * walk.points + point;
        if (samples.pixel[i] < 0) {
          continue;
        }
        const int64_t channel = group * walk.group_channels;
        Values grads[Tile::registers];
        for (int r = 0; r < Tile::registers; ++r) {
          load<Tile::lanes, T>(grads[r], grad_output + channel + r * Tile::lanes);
        }
        const Corners corners(samples, i, grad_image + walk.in_channel + channel);
        Values weights[4];
        spread<Tile::lanes, T>(weights, samples.weights + 4 * i);
        for (int k = 0; k < 4; ++k) {
          const int64_t lower = k >= 2 && samples.down[i] != 0, right = k % 2 == 1 && samples.right[i] != 0;
          if (!kWhole && !band.holds(samples.pixel[i] + lower * samples.width + right)) {
            continue;
          }
          for (int r = 0; r < Tile::registers; ++r) {
            Values sum;
            load<Tile::lanes, T>(sum, corners.at[k] + r * Tile::lanes);
            sum += weights[k] * grads[r];
            store<Tile::lanes, T>(corners.at[k] + r * Tile::lanes, sum);
          }
        }
      }
    }
    grad_output += walk.groups * walk.group_channels;
  }
}

template <typename scalar_t>
DCNV3_TARGET void run(const Reach<scalar_t>& task, int64_t begin, int64_t end) {
  Plan<scalar_t> plan(task.t, task.pieces);
  for (int64_t piece = begin; piece < end; ++piece) {
    PositionRange range;
    for_each_chunk(
        task.t.p, task.pieces, piece, [&](const Chunk& chunk) DCNV3_INLINE_LAMBDA { plan.widen(range, chunk); });
    task.reach[piece] = range.pixels(task.t.p);
  }
}

// One piece. kSampling: gradients of offset and mask are wanted. grad_image is null where the piece does not reach the
// band; mine: the piece's share of the pixels lies in the band.
template <bool kSampling, typename scalar_t>
DCNV3_NOINLINE void visit(
    const Backward<scalar_t>& task, SamplingBuffers<scalar_t>& buffers, Plan<scalar_t>& plan, int64_t piece, bool mine,
    PixelRange band, bool whole, acc_t<scalar_t>* grad_image) {
  using T = acc_t<scalar_t>;
  const Params& p = task.t.p;
  for_each_chunk(p, task.pieces, piece, [&](const Chunk& chunk) DCNV3_INLINE_LAMBDA {
    const int64_t first = chunk.first_unit(p);
    const scalar_t* const grad_output = task.grad_output + first * p.group_channels;
    plan.template make<kSampling>(chunk);
    if (kSampling && mine) {
      const scalar_t* const image = task.t.input + chunk.image * p.image_size();
      prefetch_below<kRead>(p, image, chunk);
      for_each_tile<T>(p, chunk, [&](auto tile, const Walk& walk) DCNV3_INLINE_LAMBDA {
        const auto multiply = walk.out_channel == 0 ? multiply_samples<decltype(tile), true, scalar_t>
                                                    : multiply_samples<decltype(tile), false, scalar_t>;
        multiply(walk, plan.samples(), image, grad_output, buffers.products.get());
      });
      finish(
          task.t, plan, buffers, chunk.units(), task.grad_offset + 2 * first * p.points(),
          task.grad_mask + first * p.points());
    }
    if (grad_image != nullptr) {
      prefetch_below<kWrite>(p, grad_image, chunk);
      for_each_tile<T>(p, chunk, [&](auto tile, const Walk& walk) DCNV3_INLINE_LAMBDA {
        const auto scatter =
            whole ? scatter_samples<decltype(tile), true, scalar_t> : scatter_samples<decltype(tile), false, scalar_t>;
        scatter(walk, plan.samples(), band, grad_output, grad_image);
      });
    }
  });
}

template <typename scalar_t>
DCNV3_TARGET void run(const Backward<scalar_t>& task, int64_t begin, int64_t end) {
  const Params& p = task.t.p;
  Plan<scalar_t> plan(task.t, task.pieces);
  SamplingBuffers<scalar_t> buffers(plan.capacity());
  const int64_t pixels = int64_t(p.y.size) * p.x.size;
  for (int64_t number = begin / pixels; number * pixels < end; ++number) {
    const int64_t first = number * pixels;
    const PixelRange image{0, pixels}, band{std::max(begin - first, image.begin), std::min(end - first, image.end)};
    for (int64_t k = 0; k < task.pieces.per_image; ++k) {
      const int64_t piece = number * task.pieces.per_image + k;
      const PixelRange reach = task.reach == nullptr ? image : task.reach[piece];
      const bool mine = task.grad_offset != nullptr && band.holds(k * pixels / task.pieces.per_image);
      const bool adds = task.grad_input != nullptr && band.meets(reach);
      if (mine || adds) {
        // One function for all pieces, so that those of two bands are planned alike to the bit.
        const auto visit_piece = task.grad_offset != nullptr ? visit<true, scalar_t> : visit<false, scalar_t>;
        visit_piece(
            task, buffers, plan, piece, mine, band, band.holds(reach),
            adds ? task.grad_input + number * p.image_size() : nullptr);
      }
    }
  }
}
