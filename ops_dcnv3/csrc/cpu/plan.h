// The plan: addresses and weights of many samples of one output pixel, computed together with vector instructions
// before any channel is read. Included once per instruction set, see kernels.h.

// A chunk is a whole number of groups of one pixel. Arrays are padded to whole vectors, so that the loop over samples
// needs no remainder; the padding holds numbers that nobody reads.
template <typename scalar_t>
class Plan {
 public:
  using T = acc_t<scalar_t>;
  static constexpr int64_t kSamplesPerChunk = 144;  // 16 groups of 3x3 points: the arrays stay in the L1 cache

  explicit Plan(const Params& params) : p_(params), points_(params.points()) {
    groups_per_chunk_ = std::clamp<int64_t>(kSamplesPerChunk / points_, 1, p_.groups);
    capacity_ = (groups_per_chunk_ * points_ + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    reals_ = std::make_unique<T[]>(kReals * capacity_);
    integers_ = std::make_unique<int32_t[]>(kIntegers * capacity_);
    for (int64_t i = 0; i < groups_per_chunk_ * points_; ++i) {
      at(kTapY)[i] = static_cast<T>(p_.tap_y(i % points_));
      at(kTapX)[i] = static_cast<T>(p_.tap_x(i % points_));
    }
  }

  int64_t groups_per_chunk() const { return groups_per_chunk_; }
  int64_t capacity() const { return capacity_; }

  // Plans `groups` groups of the output pixel (row, column), whose offsets and masks begin at the given addresses.
  DCNV3_INLINE void make(int64_t row, int64_t column, int64_t groups, const scalar_t* offset, const scalar_t* mask) {
    const int64_t count = groups * points_;
    T *const offset_y = at(kOffsetY), *const offset_x = at(kOffsetX), *const masks = at(kMask);
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      offset_x[i] = static_cast<T>(offset[2 * i]);
      offset_y[i] = static_cast<T>(offset[2 * i + 1]);
      masks[i] = static_cast<T>(mask[i]);
    }
    locate(count, static_cast<T>(p_.y.centre(row)), static_cast<T>(p_.x.centre(column)));
  }

  // Results, one element per sample.
  const T* mask() const { return at(kMask); }
  const T* weight(int corner) const { return at(kWeight) + corner * capacity_; }  // bilinear times mask
  const int32_t* inside() const { return at(kInside); }
  const int32_t* pixel() const { return at(kPixel); }  // low corner, as row * width + column
  const int32_t* right() const { return at(kRight); }  // elements to the right corners; 0 at a border
  const int32_t* down() const { return at(kDown); }    // elements to the lower corners; 0 at a border
  const int32_t* low_row() const { return at(kLowRow); }
  const int32_t* high_row() const { return at(kHighRow); }
  Neighbours<T> y_neighbours(int64_t i) const { return neighbours_at(kY, i); }  // without low and high
  Neighbours<T> x_neighbours(int64_t i) const { return neighbours_at(kX, i); }

 private:
  using Reals = Pack<T, kLanes<T>>;
  using Integers = Pack<int32_t, kLanes<T>>;

  // The arrays; those with a number take so many.
  enum Real { kTapY, kTapX, kOffsetY, kOffsetX, kMask, kWeight /*4*/, kY = kWeight + 4 /*4*/, kX = kY + 4 /*4*/ };
  enum Integer { kInside, kPixel, kRight, kDown, kLowRow, kHighRow };
  static constexpr int kReals = kX + 4;
  static constexpr int kIntegers = kHighRow + 1;

  T* at(Real array) const { return reals_.get() + array * capacity_; }
  int32_t* at(Integer array) const { return integers_.get() + array * capacity_; }

  Neighbours<T> neighbours_at(Real axis, int64_t i) const {
    const T* values = at(axis) + i;
    return {0, 0, values[0], values[capacity_], values[2 * capacity_], values[3 * capacity_], T(1)};
  }

  DCNV3_INLINE Reals read(Real array, int64_t i) const {
    Reals values;
    std::memcpy(&values, at(array) + i, sizeof(values));
    return values;
  }

  template <typename Array, typename Values>
  DCNV3_INLINE void write(Array array, int64_t i, const Values& values, int64_t further = 0) const {
    std::memcpy(at(array) + further * capacity_ + i, &values, sizeof(values));
  }

  DCNV3_INLINE void write(Real axis, int64_t i, const Neighbours<Reals, Integers>& n) const {
    write(axis, i, n.low_weight, 0);
    write(axis, i, n.high_weight, 1);
    write(axis, i, n.low_slope, 2);
    write(axis, i, n.high_slope, 3);
  }

  // Each step computes one vector of samples.
  DCNV3_INLINE void locate(int64_t count, T centre_y, T centre_x) {
    const Reals scale = Reals{} + static_cast<T>(p_.offset_scale);
    const Reals middle_y = Reals{} + centre_y, middle_x = Reals{} + centre_x;
    const int32_t height = p_.y.size, width = p_.x.size;
    const int32_t channels = static_cast<int32_t>(p_.channels());
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const auto y =
          neighbours<Reals, Integers>(sample_position(middle_y, read(kTapY, i), read(kOffsetY, i), scale), height);
      const auto x =
          neighbours<Reals, Integers>(sample_position(middle_x, read(kTapX, i), read(kOffsetX, i), scale), width);
      write(kInside, i, convert<Integers>(y.inside * x.inside));
      write(kPixel, i, y.low * width + x.low);
      write(kRight, i, (x.high - x.low) * channels);
      write(kDown, i, (y.high - y.low) * (width * channels));
      write(kLowRow, i, y.low);
      write(kHighRow, i, y.high);
      const Reals low = read(kMask, i) * y.low_weight, high = read(kMask, i) * y.high_weight;
      write(kWeight, i, low * x.low_weight, 0);
      write(kWeight, i, low * x.high_weight, 1);
      write(kWeight, i, high * x.low_weight, 2);
      write(kWeight, i, high * x.high_weight, 3);
      write(kY, i, y);
      write(kX, i, x);
    }
  }

  Params p_;
  int64_t points_;
  int64_t groups_per_chunk_;
  int64_t capacity_;
  std::unique_ptr<T[]> reals_;
  std::unique_ptr<int32_t[]> integers_;
};
