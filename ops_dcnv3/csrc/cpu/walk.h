// The ways through the tensors that the kernels share. Included once per instruction set, see kernels.h.

// Calls f(chunk) for the chunks of a piece.
template <typename F>
DCNV3_INLINE void for_each_chunk(const Params& p, const Pieces& pieces, int64_t piece, const F& f) {
  const int64_t row = piece / pieces.per_row, begin = piece % pieces.per_row * pieces.pixels;
  const int64_t end = std::min(begin + pieces.pixels, int64_t(p.x.out_size));
  Chunk chunk{row / p.y.out_size, row % p.y.out_size, 0, 0, 0, 0};
  for (chunk.pixel = begin; chunk.pixel < end; chunk.pixel += pieces.chunk_pixels) {
    chunk.pixels = std::min(pieces.chunk_pixels, end - chunk.pixel);
    for (chunk.group = 0; chunk.group < p.groups; chunk.group += pieces.chunk_groups) {
      chunk.groups = std::min(pieces.chunk_groups, p.groups - chunk.group);
      f(chunk);
    }
  }
}

// One tile's channels in the units of a chunk. In the input they count within a pixel, in the output within the chunk.
struct Walk {
  int64_t pixels, groups;
  int64_t points, group_channels;
  int64_t in_channel, out_channel;  // where the first unit's begin
};

// Calls f(tile, walk) for tiles that cover the channels of a chunk.
template <typename T, typename F>
DCNV3_INLINE void for_each_tile(const Params& p, const Chunk& chunk, const F& f) {
  cover_with_tiles<T>(p.group_channels, [&](auto tile, int64_t channel) DCNV3_INLINE_LAMBDA {
    f(tile,
      Walk{
          chunk.pixels, chunk.groups, p.points(), p.group_channels, chunk.group * p.group_channels + channel, channel});
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
DCNV3_INLINE void prefetch_below(const Params& p, T* image, const Chunk& chunk) {
  const int64_t row = p.y.centre(chunk.row) + p.y.tap(p.y.kernel - 1) + kRowsAhead;
  if (row >= 0 && row < p.y.size && chunk.group == 0) {
    const int64_t begin = std::min<int64_t>(chunk.pixel * p.x.stride, p.x.size);
    const int64_t end = std::min<int64_t>((chunk.pixel + chunk.pixels) * p.x.stride, p.x.size);
    prefetch<kAccess, kL2>(image + (row * p.x.size + begin) * p.channels(), (end - begin) * p.channels());
  }
}
