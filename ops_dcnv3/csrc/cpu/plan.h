// The plan: addresses and weights of many samples, computed together with vector instructions before any channel is
// read. Included once per instruction set, see kernels.h.

// What a sum over samples reads, one element per sample.
template <typename T>
struct Samples {
  int64_t channels, width;
  const int32_t* pixel;  // the low corner, as row * width + column; negative for a sample outside the image
  const int32_t* right;  // elements to the right corners; 0 at a border
  const int32_t* down;   // elements to the lower corners; 0 at a border
  const T* weights;      // of the four corners in the output
};

// The neighbours of a position whose two pixels both lie in the image: what neighbours() computes, to the bit, in fewer
// steps. Most samples are such.
template <typename T, typename I>
DCNV3_INLINE Neighbours<T, I> within(T position) {
  const I low = convert<I>(position);
  const T one = T{} + 1, fraction = position - convert<T>(low);
  return {low, low + 1, one - fraction, fraction, -one, one, one};
}

// The least and the greatest position of some samples along both axes.
struct PositionRange {
  double low_y = kNowhere, high_y = -kNowhere, low_x = kNowhere, high_x = -kNowhere;

  // The pixels between which all neighbours of such samples are, and more: one row and one column on each side, for
  // the positions in a plan may be rounded otherwise.
  PixelRange pixels(const Params& p) const {
    const int64_t first = clamp(low_y - 1, p.y) * p.x.size + clamp(low_x - 1, p.x);
    const int64_t last = clamp(high_y + 2, p.y) * p.x.size + clamp(high_x + 2, p.x);
    return {first, last + 1};
  }

 private:
  static constexpr double kNowhere = std::numeric_limits<double>::infinity();

  static int64_t clamp(double position, const Axis& axis) {
    return static_cast<int64_t>(std::min(std::max(position, 0.0), axis.size - 1.0));
  }
};

// The arrays are padded to whole vectors, so that loops over samples need no remainder; what the padding holds is
// zero or stems from samples before.
template <typename scalar_t>
class Plan {
 public:
  using T = acc_t<scalar_t>;
  using Reals = Pack<T, kLanes<T>>;
  using Integers = Pack<int32_t, kLanes<T>>;
  using Sides = Neighbours<Reals, Integers>;

  Plan(const Tensors<scalar_t>& tensors, const Pieces& pieces) : t_(tensors), p_(tensors.p), points_(p_.points()) {
    const int64_t samples = pieces.chunk_units() * points_;
    capacity_ = (samples + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    reals_ = allocate<T>("the plan of a thread", kReals * capacity_);
    integers_ = allocate<int32_t>("the plan of a thread", kIntegers * capacity_);
    for (int64_t i = 0; i < samples; ++i) {
      at(kTapY)[i] = static_cast<T>(p_.tap_y(i % points_));
      at(kTapX)[i] = static_cast<T>(p_.tap_x(i % points_));
      at(kColumn)[i] = static_cast<T>(i / points_ / p_.groups * p_.x.stride);
    }
  }

  int64_t capacity() const { return capacity_; }

  // Plans a chunk. With kSampling also what the gradients of offset and mask need.
  template <bool kSampling>
  DCNV3_INLINE void make(const Chunk& chunk) {
    const int64_t units = chunk.units(), count = units * points_, first = chunk.first_unit(p_) * points_;
    read_offset(count, t_.offset + 2 * first);
    read_mask(count, t_.mask + first);
    if (t_.mask_is_logits) {
      softmax(units, points_, at(kMask));
    }
    for_each_vector(
        chunk, [&](int64_t i, const Reals& y, const Reals& x) DCNV3_INLINE_LAMBDA { locate<kSampling>(i, y, x); });
  }

  // Widens the range to the positions of a chunk. A position that is not a number does not count.
  DCNV3_INLINE void widen(PositionRange& range, const Chunk& chunk) {
    read_offset(chunk.units() * points_, t_.offset + 2 * chunk.first_unit(p_) * points_);
    Reals low_y = Reals{} + static_cast<T>(range.low_y), high_y = Reals{} + static_cast<T>(range.high_y);
    Reals low_x = Reals{} + static_cast<T>(range.low_x), high_x = Reals{} + static_cast<T>(range.high_x);
    for_each_vector(chunk, [&](int64_t, const Reals& y, const Reals& x) DCNV3_INLINE_LAMBDA {
      low_y = y < low_y ? y : low_y;
      high_y = y > high_y ? y : high_y;
      low_x = x < low_x ? x : low_x;
      high_x = x > high_x ? x : high_x;
    });
    for (int k = 0; k < kLanes<T>; ++k) {
      range.low_y = std::min<double>(range.low_y, low_y[k]);
      range.high_y = std::max<double>(range.high_y, high_y[k]);
      range.low_x = std::min<double>(range.low_x, low_x[k]);
      range.high_x = std::max<double>(range.high_x, high_x[k]);
    }
  }

  Samples<T> samples() const { return {p_.channels(), p_.x.size, at(kPixel), at(kRight), at(kDown), at(kWeights)}; }
  const T* mask() const { return at(kMask); }

  // With kSampling: the sides of one vector of samples.
  DCNV3_INLINE void sides(int64_t i, Sides& y, Sides& x) const {
    for (auto [sides, array] : {std::pair(&y, kSideY), std::pair(&x, kSideX)}) {
      read(sides->low_weight, array, 0, i);
      read(sides->high_weight, array, 1, i);
      read(sides->low_slope, array, 2, i);
      read(sides->high_slope, array, 3, i);
    }
  }

 private:
  // Arrays of one element per sample; of the last three, four.
  enum Real { kTapY, kTapX, kColumn, kOffsetY, kOffsetX, kMask, kWeights, kSideY = kWeights + 4, kSideX = kSideY + 4 };
  enum Integer { kPixel, kRight, kDown };
  static constexpr int kReals = kSideX + 4;
  static constexpr int kIntegers = kDown + 1;

  T* at(Real array) const { return reals_.get() + array * capacity_; }
  int32_t* at(Integer array) const { return integers_.get() + array * capacity_; }

  DCNV3_INLINE void read(Reals& values, Real array, int part, int64_t i) const {
    std::memcpy(&values, at(array) + part * capacity_ + i, sizeof(values));
  }
  DCNV3_INLINE Reals read(Real array, int64_t i) const {
    Reals values;
    read(values, array, 0, i);
    return values;
  }
  DCNV3_INLINE void write(Integer array, int64_t i, const Integers& values) const {
    std::memcpy(at(array) + i, &values, sizeof(values));
  }

  // Copies a chunk's offsets, and asks for those of the next.
  DCNV3_INLINE void read_offset(int64_t count, const scalar_t* offset) const {
    T *const offset_y = at(kOffsetY), *const offset_x = at(kOffsetX);
#if !defined(__clang__)
#pragma GCC ivdep  // the arrays do not overlap
#endif
    for (int64_t i = 0; i < count; ++i) {
      offset_x[i] = static_cast<T>(offset[2 * i]);
      offset_y[i] = static_cast<T>(offset[2 * i + 1]);
    }
    prefetch<kRead, kL1>(offset + 2 * count, 2 * count);
  }

  DCNV3_INLINE void read_mask(int64_t count, const scalar_t* mask) const {
    T* const masks = at(kMask);
#if !defined(__clang__)
#pragma GCC ivdep
#endif
    for (int64_t i = 0; i < count; ++i) {
      masks[i] = static_cast<T>(mask[i]);
    }
    prefetch<kRead, kL1>(mask + count, count);
  }

  // Calls f(i, y, x) with the positions of each vector of samples.
  template <typename F>
  DCNV3_INLINE void for_each_vector(const Chunk& chunk, const F& f) const {
    const int64_t count = chunk.units() * points_;
    const Reals scale = Reals{} + static_cast<T>(p_.offset_scale);
    const Reals middle_y = Reals{} + static_cast<T>(p_.y.centre(chunk.row));
    const Reals middle_x = Reals{} + static_cast<T>(p_.x.centre(chunk.pixel));
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      f(i, sample_position(middle_y, read(kTapY, i), read(kOffsetY, i), scale),
        sample_position<Reals>(middle_x + read(kColumn, i), read(kTapX, i), read(kOffsetX, i), scale));
    }
  }

  template <bool kSampling>
  DCNV3_INLINE void locate(int64_t i, const Reals& y, const Reals& x) const {
    const int32_t height = p_.y.size, width = p_.x.size;
    const Reals last_y = Reals{} + static_cast<T>(height - 1), last_x = Reals{} + static_cast<T>(width - 1);
    const Integers none{}, next = none + static_cast<int32_t>(p_.channels()), below = next * width;
    if (all<kLanes<T>>((y >= Reals{}) & (y < last_y) & (x >= Reals{}) & (x < last_x))) {
      place<kSampling>(i, within<Reals, Integers>(y), within<Reals, Integers>(x), none, next, below);
    } else {
      const auto rows = neighbours<Reals, Integers>(y, height), columns = neighbours<Reals, Integers>(x, width);
      const Integers outside = convert<Integers>(rows.inside * columns.inside) - 1;  // all bits, or none
      place<kSampling>(
          i, rows, columns, outside, columns.high > columns.low ? next : none, rows.high > rows.low ? below : none);
    }
  }

  template <bool kSampling>
  DCNV3_INLINE void place(
      int64_t i, const Sides& y, const Sides& x, const Integers& outside, const Integers& right,
      const Integers& down) const {
    write(kPixel, i, (y.low * p_.x.size + x.low) | outside);
    write(kRight, i, right);
    write(kDown, i, down);
    const auto weights = corner_weights(y, x);
    const Reals mask = read(kMask, i);
    store_interleaved<kLanes<T>>(
        at(kWeights) + 4 * i, mask * weights.value[0], mask * weights.value[1], mask * weights.value[2],
        mask * weights.value[3]);
    if constexpr (kSampling) {
      write(kSideY, i, y);
      write(kSideX, i, x);
    }
  }

  DCNV3_INLINE void write(Real array, int64_t i, const Sides& sides) const {
    T* const parts = at(array) + i;
    std::memcpy(parts, &sides.low_weight, sizeof(Reals));
    std::memcpy(parts + capacity_, &sides.high_weight, sizeof(Reals));
    std::memcpy(parts + 2 * capacity_, &sides.low_slope, sizeof(Reals));
    std::memcpy(parts + 3 * capacity_, &sides.high_slope, sizeof(Reals));
  }

  Tensors<scalar_t> t_;
  Params p_;
  int64_t points_;
  int64_t capacity_;
  std::unique_ptr<T[]> reals_;
  std::unique_ptr<int32_t[]> integers_;
};
