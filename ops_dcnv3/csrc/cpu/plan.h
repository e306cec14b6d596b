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

// A unit is one group of one output pixel; the units of a row are numbered pixel by pixel. A chunk, which is planned at
// a time, is whole pixels of one row, or some groups of one pixel. Arrays are padded to whole vectors, so that loops
// over samples need no remainder; what the padding holds stems from samples before.
template <typename scalar_t>
class Plan {
 public:
  using T = acc_t<scalar_t>;
  using Reals = Pack<T, kLanes<T>>;
  using Integers = Pack<int32_t, kLanes<T>>;
  using Sides = Neighbours<Reals, Integers>;

  explicit Plan(const Tensors<scalar_t>& tensors) : t_(tensors), p_(tensors.p), points_(p_.points()) {
    constexpr int64_t kSamples = 144;  // 4 pixels of 4 groups of 3x3 points; their arrays stay in the L1 cache
    units_ = std::max<int64_t>(1, kSamples / points_);
    if (units_ > p_.groups) {
      units_ = std::min(units_ / p_.groups, int64_t(p_.x.out_size)) * p_.groups;
    }
    capacity_ = (units_ * points_ + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    reals_ = std::make_unique<T[]>(kReals * capacity_);
    integers_ = std::make_unique<int32_t[]>(kIntegers * capacity_);
    for (int64_t i = 0; i < units_ * points_; ++i) {
      at(kTapY)[i] = static_cast<T>(p_.tap_y(i % points_));
      at(kTapX)[i] = static_cast<T>(p_.tap_x(i % points_));
      at(kColumn)[i] = static_cast<T>(i / points_ / p_.groups * p_.x.stride);
    }
  }

  int64_t capacity() const { return capacity_; }

  // Units of the chunk that begins with the given unit of a row.
  int64_t units_from(int64_t unit) const {
    const int64_t rest = units_ < p_.groups ? p_.groups - unit % p_.groups : p_.x.out_size * p_.groups - unit;
    return std::min(units_, rest);
  }

  // Plans the chunk of `units` units that begins with the given unit of a row of the whole output. What only the
  // gradients of offset and mask, and the extent, need is made where asked for.
  template <bool kSampling>
  DCNV3_INLINE void make(int64_t out_row, int64_t unit, int64_t units) {
    const int64_t count = units * points_;
    const int64_t first = (out_row * p_.x.out_size * p_.groups + unit) * points_;
    read_tensors(count, t_.offset + 2 * first, t_.mask + first);
    if (t_.mask_is_logits) {
      softmax(units, points_, at(kMask));
    }
    locate<kSampling>(
        count, static_cast<T>(p_.y.centre(out_row % p_.y.out_size)), static_cast<T>(p_.x.centre(unit / p_.groups)));
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

  // With kSampling: rows of the input that the samples planned since the last call touch.
  RowExtent take_extent() {
    RowExtent result;
    for (int64_t k = 0; k < kLanes<T>; ++k) {
      result.low = std::min(result.low, at(kLowest)[k]);
      result.high = std::max(result.high, at(kHighest)[k]);
    }
    std::fill_n(at(kLowest), kLanes<T>, RowExtent{}.low);
    std::fill_n(at(kHighest), kLanes<T>, RowExtent{}.high);
    return result;
  }

 private:
  // Arrays of one element per sample; of the last three, four.
  enum Real { kTapY, kTapX, kColumn, kOffsetY, kOffsetX, kMask, kWeights, kSideY = kWeights + 4, kSideX = kSideY + 4 };
  enum Integer { kPixel, kRight, kDown, kLowest, kHighest };
  static constexpr int kReals = kSideX + 4;
  static constexpr int kIntegers = kHighest + 1;

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

  // Copies a chunk's offsets and mask, and asks for those of the next.
  DCNV3_INLINE void read_tensors(int64_t count, const scalar_t* offset, const scalar_t* mask) const {
    T *const offset_y = at(kOffsetY), *const offset_x = at(kOffsetX), *const masks = at(kMask);
#if !defined(__clang__)
#pragma GCC ivdep  // the arrays do not overlap
#endif
    for (int64_t i = 0; i < count; ++i) {
      offset_x[i] = static_cast<T>(offset[2 * i]);
      offset_y[i] = static_cast<T>(offset[2 * i + 1]);
      masks[i] = static_cast<T>(mask[i]);
    }
    prefetch<kRead, kL1>(offset + 2 * count, 2 * count);
    prefetch<kRead, kL1>(mask + count, count);
  }

  // Each step computes one vector of samples.
  template <bool kSampling>
  DCNV3_INLINE void locate(int64_t count, T centre_y, T centre_x) const {
    const Reals scale = Reals{} + static_cast<T>(p_.offset_scale);
    const Reals middle_y = Reals{} + centre_y, middle_x = Reals{} + centre_x;
    const int32_t height = p_.y.size, width = p_.x.size;
    const Reals last_y = Reals{} + static_cast<T>(height - 1), last_x = Reals{} + static_cast<T>(width - 1);
    const Integers none{}, next = none + static_cast<int32_t>(p_.channels()), below = next * width;
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Reals y = sample_position(middle_y, read(kTapY, i), read(kOffsetY, i), scale);
      const Reals x =
          sample_position<Reals>(middle_x + read(kColumn, i), read(kTapX, i), read(kOffsetX, i), scale);
      if (all<kLanes<T>>((y >= Reals{}) & (y < last_y) & (x >= Reals{}) & (x < last_x))) {
        place<kSampling>(i, within<Reals, Integers>(y), within<Reals, Integers>(x), none, next, below);
      } else {
        const auto rows = neighbours<Reals, Integers>(y, height), columns = neighbours<Reals, Integers>(x, width);
        const Integers outside = convert<Integers>(rows.inside * columns.inside) - 1;  // all bits, or none
        place<kSampling>(
            i, rows, columns, outside, columns.high > columns.low ? next : none, rows.high > rows.low ? below : none);
      }
    }
  }

  template <bool kSampling>
  DCNV3_INLINE void place(
      int64_t i, const Sides& y, const Sides& x, const Integers& outside, const Integers& right,
      const Integers& down) const {
    write(kPixel, i, (y.low * p_.x.size + x.low) | outside);
    write(kRight, i, right);
    write(kDown, i, down);
    if constexpr (kSampling) {
      write(kSideY, i, y);
      write(kSideX, i, x);
      extend(y, outside);
    } else {
      const auto weights = corner_weights(y, x);
      const Reals mask = read(kMask, i);
      store_interleaved<kLanes<T>>(
          at(kWeights) + 4 * i, mask * weights.value[0], mask * weights.value[1], mask * weights.value[2],
          mask * weights.value[3]);
    }
  }

  DCNV3_INLINE void write(Real array, int64_t i, const Sides& sides) const {
    T* const parts = at(array) + i;
    std::memcpy(parts, &sides.low_weight, sizeof(Reals));
    std::memcpy(parts + capacity_, &sides.high_weight, sizeof(Reals));
    std::memcpy(parts + 2 * capacity_, &sides.low_slope, sizeof(Reals));
    std::memcpy(parts + 3 * capacity_, &sides.high_slope, sizeof(Reals));
  }

  DCNV3_INLINE void extend(const Sides& y, const Integers& outside) const {
    Integers lowest, highest;
    std::memcpy(&lowest, at(kLowest), sizeof(lowest));
    std::memcpy(&highest, at(kHighest), sizeof(highest));
    const Integers low = outside ? lowest : y.low, high = outside ? highest : y.high;
    write(kLowest, 0, low < lowest ? low : lowest);
    write(kHighest, 0, high > highest ? high : highest);
  }

  Tensors<scalar_t> t_;
  Params p_;
  int64_t points_;
  int64_t units_;
  int64_t capacity_;
  std::unique_ptr<T[]> reals_;
  std::unique_ptr<int32_t[]> integers_;
};
