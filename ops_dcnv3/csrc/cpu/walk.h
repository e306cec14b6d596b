// The ways through the tensors that the kernels share. Included once per instruction set, see kernels.h.

// Walks the chunks of a piece: f(row of the whole output, first unit of the chunk within the row, units).
template <typename F>
DCNV3_INLINE void for_each_chunk(const Params& p, const Pieces& pieces, int64_t piece, const F& f) {
  const int64_t out_row = piece / pieces.per_row, first_pixel = piece % pieces.per_row * pieces.pixels;
  const int64_t end = std::min(first_pixel + pieces.pixels, int64_t(p.x.out_size)) * p.groups;
  for (int64_t unit = first_pixel * p.groups, units; unit < end; unit += units) {
    const int64_t rest = pieces.chunk_units < p.groups ? p.groups - unit % p.groups : end - unit;
    units = std::min(pieces.chunk_units, rest);
    f(out_row, unit, units);
  }
}

// One tile's channels in the units of a chunk. In the input they count within a pixel, in the output within the chunk.
struct Walk {
  int64_t pixels, groups;  // of the chunk; without whole pixels it has some groups of one
  int64_t points, group_channels;
  int64_t in_channel, out_channel;  // where the first unit's begin
};

// Calls f(tile, walk) for tiles that cover the channels of a chunk.
template <typename T, typename F>
DCNV3_INLINE void for_each_tile(const Params& p, int64_t unit, int64_t units, const F& f) {
  const int64_t groups = std::min(units, p.groups), first_channel = unit % p.groups * p.group_channels;
  cover_with_tiles<T>(p.group_channels, [&](auto tile, int64_t channel) DCNV3_INLINE_LAMBDA {
    f(tile, Walk{units / groups, groups, p.points(), p.group_channels, first_channel + channel, channel});
  });
}

// The corners of a sample, as pointers to the first channel of a tile.
template <typename T>
struct Corners {
  T* at[4];

  template <typename Samples>
  DCNV3_INLINE Corners(const Samples& samples, int64_t i, T* image) {
    const int64_t right = samples.right[i], down = samples.down[i];
    at[0] = image + samples.pixel[i] * samples.channels;
    at[1] = at[0] + right;
    at[2] = at[0] + down;
    at[3] = at[2] + right;
  }
};

// The processor foresees neither which row of the input is next nor that it is needed: each is fetched into the L2
// cache while the rows above it are at work. Learned offsets mostly stay within this many rows of the regular grid.
constexpr int64_t kRowsAhead = 3;

// Fetches the next row's share of a chunk.
template <int kAccess, typename T>
DCNV3_INLINE void prefetch_below(const Params& p, T* image, int64_t out_row, int64_t unit, int64_t units) {
  const int64_t row = p.y.centre(out_row % p.y.out_size) + p.y.tap(p.y.kernel - 1) + kRowsAhead;
  if (row >= 0 && row < p.y.size) {
    const int64_t begin = std::min<int64_t>(unit * p.x.stride / p.groups, p.x.size);
    const int64_t end = std::min<int64_t>((unit + units) * p.x.stride / p.groups, p.x.size);
    prefetch<kAccess, kL2>(image + (row * p.x.size + begin) * p.channels(), (end - begin) * p.channels());
  }
}
