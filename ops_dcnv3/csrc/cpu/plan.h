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
  template <bool kGradients>
  DCNV3_INLINE void make(int64_t row, int64_t column, int64_t groups, const scalar_t* offset, const scalar_t* mask) {
    const int64_t count = groups * points_;
    T *const offset_y = at(kOffsetY), *const offset_x = at(kOffsetX), *const masks = at(kMask);
#if !defined(__clang__)
#pragma GCC ivdep  // the arrays do not overlap
#endif
    for (int64_t i = 0; i < count; ++i) {
      offset_x[i] = static_cast<T>(offset[2 * i]);
      offset_y[i] = static_cast<T>(offset[2 * i + 1]);
      masks[i] = static_cast<T>(mask[i]);
    }
    locate<kGradients>(count, static_cast<T>(p_.y.centre(row)), static_cast<T>(p_.x.centre(column)));
  }

  // Results, one element per sample. Weights are those of a corner in the output; of the others kGradients asks for.
  const int32_t* inside() const { return at(kInside); }
  const int32_t* pixel() const { return at(kPixel); }  // low corner, as row * width + column
  const int32_t* right() const { return at(kRight); }  // elements to the right corners; 0 at a border
  const int32_t* down() const { return at(kDown); }    // elements to the lower corners; 0 at a border
  const int32_t* low_row() const { return at(kLowRow); }
  const int32_t* high_row() const { return at(kHighRow); }
  const T* weight(int corner) const { return at(kWeight) + corner * capacity_; }
  // Factors of a corner in the gradients by the offset's x and y and by the mask.
  const T* gradient_weight(int which, int corner) const { return at(kByX) + (4 * which + corner) * capacity_; }

 private:
  using Reals = Pack<T, kLanes<T>>;
  using Integers = Pack<int32_t, kLanes<T>>;

  // The arrays; the last four hold one array per corner.
  enum Real {
    kTapY,
    kTapX,
    kOffsetY,
    kOffsetX,
    kMask,
    kWeight,
    kByX = kWeight + 4,
    kByY = kByX + 4,
    kByMask = kByY + 4
  };
  enum Integer { kInside, kPixel, kRight, kDown, kLowRow, kHighRow };
  static constexpr int kReals = kByMask + 4;
  static constexpr int kIntegers = kHighRow + 1;

  T* at(Real array) const { return reals_.get() + array * capacity_; }
  int32_t* at(Integer array) const { return integers_.get() + array * capacity_; }

  DCNV3_INLINE Reals read(Real array, int64_t i) const {
    Reals values;
    std::memcpy(&values, at(array) + i, sizeof(values));
    return values;
  }

  DCNV3_INLINE void write(Integer array, int64_t i, const Integers& values) const {
    std::memcpy(at(array) + i, &values, sizeof(values));
  }

  DCNV3_INLINE void write(Real array, int64_t i, const Reals values[4], const Reals& factor) const {
    for (int corner = 0; corner < 4; ++corner) {
      const Reals scaled = values[corner] * factor;
      std::memcpy(at(array) + corner * capacity_ + i, &scaled, sizeof(scaled));
    }
  }

  // Each step computes one vector of samples.
  template <bool kGradients>
  DCNV3_INLINE void locate(int64_t count, T centre_y, T centre_x) {
    const Reals one = Reals{} + 1, scale = Reals{} + static_cast<T>(p_.offset_scale);
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
      const auto weights = corner_weights(y, x);
      const Reals mask = read(kMask, i);
      write(kWeight, i, weights.value, mask);
      if constexpr (kGradients) {
        write(kByX, i, weights.by_x, mask * scale);
        write(kByY, i, weights.by_y, mask * scale);
        write(kByMask, i, weights.value, one);
      }
    }
  }

  Params p_;
  int64_t points_;
  int64_t groups_per_chunk_;
  int64_t capacity_;
  std::unique_ptr<T[]> reals_;
  std::unique_ptr<int32_t[]> integers_;
};
