// The forward. Included once per instruction set, see kernels.h.

// A function of its own: within the caller there would be too few registers.
template <typename Tile, typename scalar_t>
DCNV3_NOINLINE void sum_samples(Walk walk, Samples<acc_t<scalar_t>> samples, const scalar_t* image, scalar_t* output) {
  using T = acc_t<scalar_t>;
  using Values = Pack<T, Tile::lanes>;
  constexpr int kSums = 4 / Tile::registers;  // so that four additions are under way at a time
  int64_t i = 0;
  output += walk.out_channel;
  for (int64_t unit = 0, group = 0; unit < walk.pixels * walk.groups; ++unit) {
    const scalar_t* const source = image + walk.in_channel + group * walk.group_channels;
    Values sums[kSums][Tile::registers] = {};
    for (const int64_t end = i + walk.points; i < end; ++i) {
      if (samples.pixel[i] < 0) {
        continue;
      }
      const Corners corners(samples, i, source);
      Values weights[4];
      spread<Tile::lanes, T>(weights, samples.weights + 4 * i);
      for (int k = 0; k < 4; ++k) {
        for (int r = 0; r < Tile::registers; ++r) {
          Values values;
          load<Tile::lanes, T>(values, corners.at[k] + r * Tile::lanes);
          sums[k % kSums][r] += weights[k] * values;
        }
      }
    }
    for (int r = 0; r < Tile::registers; ++r) {
      Values sum = sums[0][r] + sums[1][r];
      if constexpr (kSums == 4) {
        sum += sums[2][r] + sums[3][r];
      }
      store<Tile::lanes, T>(output + r * Tile::lanes, sum);
    }
    output += walk.group_channels;
    group = group + 1 < walk.groups ? group + 1 : 0;
  }
}

template <typename scalar_t>
DCNV3_TARGET void run(const Forward<scalar_t>& task, int64_t begin, int64_t end) {
  const Params& p = task.t.p;
  Plan<scalar_t> plan(task.t, task.pieces);
  for (int64_t piece = begin; piece < end; ++piece) {
    for_each_chunk(p, task.pieces, piece, [&](int64_t out_row, int64_t unit, int64_t units) DCNV3_INLINE_LAMBDA {
      const scalar_t* const image = task.t.input + out_row / p.y.out_size * p.image_size();
      scalar_t* const output = task.output + (out_row * p.x.out_size * p.groups + unit) * p.group_channels;
      plan.template make<false>(out_row, unit, units);
      prefetch_below<kRead>(p, image, out_row, unit, units);
      for_each_tile<acc_t<scalar_t>>(p, unit, units, [&](auto tile, const Walk& walk) DCNV3_INLINE_LAMBDA {
        sum_samples<decltype(tile), scalar_t>(walk, plan.samples(), image, output);
      });
    });
  }
}
