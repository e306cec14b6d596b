// The forward. Included once per instruction set, see kernels.h.

// A function of its own: within the caller there would be too few registers.
template <typename Tile, typename scalar_t>
DCNV3_NOINLINE void sum_samples(Walk walk, Samples<acc_t<scalar_t>> samples, const scalar_t* image, scalar_t* output) {
  using T = acc_t<scalar_t>;
  using Values = Pack<T, Tile::lanes>;
  int64_t i = 0;
  output += walk.out_channel;
  for (int64_t unit = 0, group = 0; unit < walk.pixels * walk.groups; ++unit) {
    const scalar_t* const source = image + walk.in_channel + group * walk.group_channels;
    // One sum per corner, and for every second sample: so that eight additions are under way at a time.
    Values sums[2][4][Tile::registers] = {};
    const auto add = [&](int64_t sample, Values(&to)[4][Tile::registers]) DCNV3_INLINE_LAMBDA {
      if (samples.pixel[sample] < 0) {
        return;
      }
      const Corners corners(samples, sample, source);
      Values weights[4];
      spread<Tile::lanes, T>(weights, samples.weights + 4 * sample);
      for (int k = 0; k < 4; ++k) {
        for (int r = 0; r < Tile::registers; ++r) {
          Values values;
          load<Tile::lanes, T>(values, corners.at[k] + r * Tile::lanes);
          to[k][r] += weights[k] * values;
        }
      }
    };
    const int64_t end = i + walk.points;
    for (; i + 1 < end; i += 2) {
      add(i, sums[0]);
      add(i + 1, sums[1]);
    }
    if (i < end) {
      add(i++, sums[0]);
    }
    for (int r = 0; r < Tile::registers; ++r) {
      Values sum = (sums[0][0][r] + sums[1][0][r]) + (sums[0][1][r] + sums[1][1][r]);
      sum += (sums[0][2][r] + sums[1][2][r]) + (sums[0][3][r] + sums[1][3][r]);
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
    for_each_chunk(p, task.pieces, piece, [&](const Chunk& chunk) DCNV3_INLINE_LAMBDA {
      const scalar_t* const image = task.t.input + chunk.image * p.image_size();
      plan.template make<false>(chunk);
      prefetch_below<kRead>(p, image, chunk);
      for_each_tile<acc_t<scalar_t>>(p, chunk, [&](auto tile, const Walk& walk) DCNV3_INLINE_LAMBDA {
        scalar_t* const output = task.output + chunk.first_unit(p) * p.group_channels;
        sum_samples<decltype(tile), scalar_t>(walk, plan.samples(), image, output);
      });
    });
  }
}
